"""The files of hpc/deepspeed hold settings that only decide speed. Other keys are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc.deepspeed import settings
from leukotree.errors import InputError


def test_each_strategy_has_a_file_of_its_own() -> None:
    assert {path.stem for path in settings.FOLDER.glob("*.yaml")} == set(settings.STRATEGIES)
    known = settings.settings()
    assert known["zero1"]["zero_optimization"]["reduce_bucket_size"] == 8_000_000
    assert isinstance(known["zero3"]["zero_optimization"]["stage3_prefetch_bucket_size"], int)


def test_one_user_file_replaces_all(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "zero_optimization: {overlap_comm: false, offload_optimizer: {pin_memory: false}}"
    )
    wanted = {"zero_optimization": {"overlap_comm": False, "offload_optimizer": {"pin_memory": False}}}
    assert settings.settings(tmp_path / "mine.yaml") == dict.fromkeys(settings.STRATEGIES, wanted)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gradient_clipping: 1.0", "gradient_clipping is not a setting of speed"),
        ("bf16: {enabled: true}", "bf16 is not a setting of speed"),
        ("zero_optimization: {stage: 3}", "zero_optimization.stage is not a setting of speed"),
        (
            "zero_optimization: {offload_optimizer: {device: cpu}}",
            "zero_optimization.offload_optimizer.device is not",
        ),
        (
            "zero_optimization: {overlap_comm: 1}",
            "zero_optimization.overlap_comm: expected true or false, got 1",
        ),
        (
            "zero_optimization: {reduce_bucket_size: 0}",
            "reduce_bucket_size: expected a whole number above 0, got 0",
        ),
        (
            "zero_optimization: {reduce_bucket_size: .inf}",
            "reduce_bucket_size: expected a whole number above 0, got inf",
        ),
        ("zero_optimization: 3", "zero_optimization must be a mapping"),
        ("- 1", "the file must be a mapping"),
    ],
)
def test_what_the_spec_decides_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        settings.settings(tmp_path / "mine.yaml")
    assert message in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "mine.yaml"))
    assert "\n" not in str(error.value)
