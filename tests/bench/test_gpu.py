"""The script for machines with GPUs runs where there is none, and its figures become a table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


def script(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    without = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, str(HERE / name), *words], capture_output=True, text=True, check=False, env=without
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
@pytest.mark.parametrize(("words", "fix"), [([], "no GPU here"), (["--device", "cpu"], "--tiny")])
def test_without_a_gpu_it_says_so_in_one_line(words: list[str], fix: str) -> None:
    done = script("gpu.py", *words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert fix in done.stderr


@pytest.mark.slow("measures every part, and searches a small study")
@pytest.mark.long("each part starts ranks of its own; `leukotree bench` has tests of its own")
def test_every_part_is_measured_on_a_cpu_and_has_a_row_in_the_table(tmp_path: Path) -> None:
    done = script("gpu.py", "--device", "cpu", "--tiny", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("CPU: no known peak, so no MFU\n")
    stored = json.loads((tmp_path / "cpu.json").read_text())
    values = {row["what"]: row["value"] for row in stored["rows"]}
    assert list(values) == [
        "step, bf16",
        "step, fp32",
        "loader",
        "loader, cached",
        "step of two ranks, bf16",
        "all-reduce",
        "fp32, largest relative error",
        "features of a frozen backbone, bf16",
        "study: epochs of trials per minute",
    ]
    assert min(values.values()) > 0
    assert values["fp32, largest relative error"] < 1e-5
    [study] = [row for row in stored["rows"] if row["what"].startswith("study")]
    assert study["note"].startswith("3 trials in")
    assert "complete; best macro-F1" in study["note"]
    assert "flat 0." in study["note"]


def test_what_is_known_of_a_card_gives_its_share_of_the_peak(
    shards: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    import gpu
    from torch.utils.flop_counter import FlopCounterMode

    from leukotree.models.classifier import build
    from leukotree.models.stages import stages

    known = gpu.Bench(gpu.TINY, "cpu", "NVIDIA A100-SXM4-40GB", 1, shards, tmp_path)
    spec = known.spec(precision="bf16")
    dataset = gpu.Dataset.open(shards)
    [stage] = stages("flat", dataset.taxonomy)
    with FlopCounterMode(display=False) as counter:
        build(spec, stage, dataset.size).eval()(torch.zeros(1, 3, dataset.size, dataset.size))
    expected = 3 * 1000 * counter.get_total_flops() / 2 / 312e12  # two cards, of 312 TFLOP/s each
    # The counter does not know the CPU's own attention, which is a small part here.
    assert known.mfu(spec, 1000.0, ranks=2) == pytest.approx(expected, rel=0.05)
    unknown = gpu.Bench(gpu.TINY, "cpu", "Sprocket 9000", 1, shards, tmp_path)
    assert unknown.mfu(spec, 1000.0) is None


def test_the_page_has_a_table_for_each_card_or_says_that_there_was_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    import table

    assert table.NO_GPU in table.page(tmp_path)
    stored = {
        "card": "Sprocket 9000",
        "cards": 2,
        "peak_flops": {"bf16": 5e14, "fp32": None},
        "torch": "9.0",
        "measured": "2030-01-01",
        "commit": "abc",
        "machine": "8 cores, Cog",
        "rows": [
            {"what": "step, bf16", "value": 1234.5, "unit": "images/s", "mfu": 0.4567, "note": "bare: 1300"}
        ],
    }
    (tmp_path / "sprocket-9000.json").write_text(json.dumps(stored))
    text = table.page(tmp_path)
    assert "| step, bf16 | 1234 | images/s | 45.7% | bare: 1300 |" in text
    assert "the maker's TFLOP/s: 500 in bf16." in text
    assert table.NO_GPU not in text
