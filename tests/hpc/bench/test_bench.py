"""The command `leukotree bench`."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from hpc.bench import bench, trial_cost
from hpc.cli import main
from leukotree.errors import InputError
from leukotree.spec import RunSpec

BRIEF = ["--seconds", "0.001", "--device", "cpu"]


@pytest.fixture
def spec(shards: Path, tmp_path: Path) -> Path:
    fields = {
        "data.shards": str(shards),
        "backbone.name": "test_vit",
        "optim.batch_size": 12,
        "engine.precision": "fp32",
    }
    path = tmp_path / "run.yaml"
    path.write_text(RunSpec().override(fields).dump())
    return path


def printed(*arguments: object, cwd: Path) -> str:
    out = io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out):
        assert main(["bench", *map(str, arguments), *BRIEF]) == 0
    return out.getvalue()


@pytest.mark.slow("measures")
def test_the_table_has_each_measurement_beside_its_limit(spec: Path, tmp_path: Path) -> None:
    lines = printed(spec, "--only", "step,loader,checkpoint", "--workers", 1, cwd=tmp_path).splitlines()
    assert "cores" in lines[0]
    assert "torch" in lines[0]
    assert "backbone test_vit" in lines[1]
    assert lines[3].split("  ")[0] == "what"
    assert [line.split("  ")[0] for line in lines[4:9]] == [
        "loader",
        "loader, cached",
        "step",
        "checkpoint, held up",
        "checkpoint, written",
    ]
    assert any(line.startswith("bottleneck: ") for line in lines)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.yaml"]


@pytest.mark.slow("measures")
def test_json_has_everything_and_its_bottleneck(spec: Path, tmp_path: Path) -> None:
    report = json.loads(
        printed(spec, "optim.batch_size=6", "--only", "step,all-reduce", "--json", cwd=tmp_path)
    )
    step, reduce = report["rows"]
    assert step["share"] == pytest.approx(step["measured"] / step["limit"])
    assert step["seconds"] == pytest.approx(6 / step["measured"])
    assert (reduce["measured"], reduce["share"]) == (None, None)
    assert set(report["machine"]) == {"cores", "processor", "gpus", "torch"}
    assert (report["setup"]["batch"], report["setup"]["ranks"]) == (6, 1)
    assert sum(report["shares"].values()) == pytest.approx(1)
    assert report["bottleneck"] in {*report["shares"], "balanced"}
    assert report["advice"]


@pytest.mark.slow("starts ranks")
def test_ranks_measure_together_and_exchange_gradients(spec: Path, tmp_path: Path) -> None:
    """In a separate process: local ranks are forked from a server that this process would keep."""
    command = [sys.executable, "-m", "hpc.cli", "bench", spec.name, "--ranks", "2", "--json", *BRIEF]
    command += ["--only", "loader,step,all-reduce,checkpoint"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [row["what"] for row in report["rows"]] == [
        "loader",
        "loader, cached",
        "step",
        "all-reduce",
        "checkpoint, held up",
        "checkpoint, written",
    ]
    assert all(row["share"] > 0 for row in report["rows"])
    assert report["rows"][3]["unit"] == "GB/s"
    assert "gloo" in report["rows"][3]["limit_is"]
    assert report["setup"]["ranks"] == 2


@pytest.mark.slow("measures")
def test_without_a_spec_phantoms_are_drawn_into_a_temporary_folder(tmp_path: Path) -> None:
    report = json.loads(
        printed("backbone.name=test_resnet", "--size", 32, "--only", "step", "--json", cwd=tmp_path)
    )
    assert (report["setup"]["backbone"], report["setup"]["size"]) == ("test_resnet", 32)
    assert not list(tmp_path.iterdir())


def test_a_decoded_cache_of_the_user_is_used_and_kept(spec: Path, tmp_path: Path) -> None:
    printed(spec, "--only", "loader", "--cache", tmp_path / "decoded", cwd=tmp_path)
    assert list((tmp_path / "decoded").rglob("*.pixels"))


@pytest.mark.slow("starts Ray")
@pytest.mark.long("times trials; tests/hpc/search/test_slot.py has what they do")
def test_a_trial_is_measured_through_ray(tmp_path: Path) -> None:
    [row] = json.loads(
        printed("backbone.name=test_vit", "--size", 32, "--only", "trial", "--json", cwd=tmp_path)
    )["rows"]
    assert (row["what"], row["unit"], row["limit"]) == ("trial", "s", trial_cost.BUDGET)
    assert row["measured"] > 0
    assert not list(tmp_path.iterdir())


def test_parts_keep_their_order() -> None:
    assert bench.parts(None) == list(bench.PARTS)
    assert bench.parts("trial,step") == ["step", "trial"]
    with pytest.raises(InputError, match="'steps'; known: loader, step, all-reduce, checkpoint, trial"):
        bench.parts("step,steps")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--only", "steps"], "--only: no measurement 'steps'"),
        (["gone.yaml"], "gone.yaml: cannot be read"),
        (["optim.lr=0"], "optim.lr: Input should be greater than 0"),
        (["data.shards=gone"], "gone: no such folder"),
        (["backbone.name=vit_smal", "data.shards=gone"], "timm has no model 'vit_smal'"),
        (["--size", "31"], "size is 31; give at least 32"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with contextlib.chdir(tmp_path):
        assert main(["bench", *arguments]) == 2
    error = capfd.readouterr().err
    assert error.startswith("leukotree bench: ")
    assert says in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_the_command_line_is_read_without_slow_imports() -> None:
    slow = ("torch", "pandas", "numpy", "pydantic", "yaml", "logging", "dataclasses")
    code = (
        "import sys; before = {*sys.modules}; import hpc.cli; hpc.cli.parser(); "
        f"print(*({{*sys.modules}} - before) & {{*{slow}}})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
