"""Checkpoints: the newest valid one is loaded, whatever a kill or a full disk left behind."""

import copy
import json

import pytest
import torch

from leukotree.errors import RunFailed
from leukotree.training import checkpoint


def state(value: float) -> dict[str, object]:
    return {"model": {"weight": torch.full((3,), value)}, "step": 7, "rates": [0.1, 0.2]}


def test_what_was_saved_comes_back_and_old_ones_go(tmp_path) -> None:
    for number in (1, 2, 3):
        checkpoint.save(tmp_path, number, state(number), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000002", "00000003"]
    number, loaded = checkpoint.load_latest(tmp_path)
    assert number == 3
    assert torch.equal(loaded["model"]["weight"], torch.full((3,), 3.0))
    assert loaded["rates"] == [0.1, 0.2]


def test_one_that_is_there_is_not_written_again(tmp_path) -> None:
    """Its state would be the same. Replacing it would leave a moment without any checkpoint."""
    first = checkpoint.save(tmp_path, 7, state(1))
    inode = (first / "state.pt").stat().st_ino
    assert checkpoint.save(tmp_path, 7, state(1), keep=1) == first
    assert (first / "state.pt").stat().st_ino == inode
    (first / "state.pt").write_bytes(b"damaged")
    checkpoint.save(tmp_path, 7, state(1))
    assert checkpoint.load_latest(tmp_path)[0] == 7


def test_a_snapshot_keeps_what_was_there_while_training_goes_on() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).to(
        memory_format=torch.channels_last
    )
    optimizer = torch.optim.AdamW(model.parameters())
    now = lambda: {"model": model.state_dict(), "optimizer": optimizer.state_dict()}  # noqa: E731

    def step() -> None:
        model(torch.ones(2, 3, 5, 5)).sum().backward()
        optimizer.step()

    snapshot: object = None
    for _ in range(3):  # before the first step the optimizer has no state
        snapshot = checkpoint.snapshot(now(), snapshot)
        expected = copy.deepcopy(now())
        step()
        torch.testing.assert_close(snapshot, expected, atol=0, rtol=0)
        with pytest.raises(AssertionError):
            torch.testing.assert_close(snapshot["model"], now()["model"], atol=0, rtol=0)


def test_the_memory_of_a_snapshot_is_used_again() -> None:
    first = checkpoint.snapshot(state(1))
    place = first["model"]["weight"].data_ptr()
    second = checkpoint.snapshot(state(2), first)
    assert second["model"]["weight"].data_ptr() == place
    assert second["model"]["weight"].tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    "damage",
    ["cut", "flipped", "no marker", "empty marker", "marker is a list", "another format", "no state"],
)
def test_a_damaged_checkpoint_is_passed_over(tmp_path, damage: str) -> None:
    checkpoint.save(tmp_path, 1, state(1))
    newest = checkpoint.save(tmp_path, 2, state(2))
    data = (newest / checkpoint.STATE).read_bytes()
    match damage:
        case "cut":
            (newest / checkpoint.STATE).write_bytes(data[:-10])
        case "flipped":
            (newest / checkpoint.STATE).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        case "no marker":
            (newest / checkpoint.MARKER).unlink()
        case "empty marker":
            (newest / checkpoint.MARKER).write_text("")
        case "marker is a list":
            (newest / checkpoint.MARKER).write_text("[]")
        case "another format":
            (newest / checkpoint.MARKER).write_text(
                json.dumps(json.loads((newest / checkpoint.MARKER).read_text()) | {"format": 1})
            )
        case "no state":
            (newest / checkpoint.STATE).unlink()
    latest = checkpoint.load_latest(tmp_path)
    assert latest is not None
    assert latest[0] == 1


def test_damaged_ones_of_higher_numbers_do_not_push_out_a_new_one(tmp_path) -> None:
    for number in (20, 21):
        folder = checkpoint.save(tmp_path, number, state(number))
        (folder / checkpoint.MARKER).write_text("{}")
    for number in (1, 2, 3):
        checkpoint.save(tmp_path, number, state(number))
        latest = checkpoint.load_latest(tmp_path)
        assert latest is not None
        assert latest[0] == number


def test_nothing_there_is_no_checkpoint(tmp_path) -> None:
    assert checkpoint.load_latest(tmp_path / "none") is None
    (tmp_path / ".00000001.tmp").mkdir()
    assert checkpoint.load_latest(tmp_path) is None


def test_a_failed_write_leaves_the_last_one_and_no_rubbish(tmp_path, monkeypatch) -> None:
    checkpoint.save(tmp_path, 1, state(1))

    def failed(*_: object) -> None:
        raise OSError(5, "Input/output error")  # tests/test_full_disk.py has a disk that is full

    monkeypatch.setattr(torch, "save", failed)
    with pytest.raises(RunFailed, match=f"^{tmp_path}: a checkpoint cannot be written: .*Input/output"):
        checkpoint.save(tmp_path, 2, state(2))
    assert [path.name for path in tmp_path.iterdir()] == ["00000001"]


def test_what_a_kill_left_of_another_one_goes(tmp_path) -> None:
    (tmp_path / ".00000003.tmp").mkdir()
    (tmp_path / ".00000003.tmp" / "state.pt").write_bytes(b"cut sh")
    checkpoint.save(tmp_path, 4, {"w": torch.ones(2)})
    assert [path.name for path in tmp_path.iterdir()] == ["00000004"]


def test_code_in_a_checkpoint_is_never_run(tmp_path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (open, (str(tmp_path / "trapped"), "w"))  # type: ignore[return-value]

    folder = checkpoint.save(tmp_path, 1, state(1))
    torch.save(Trap(), folder / checkpoint.STATE)
    marker = json.loads((folder / checkpoint.MARKER).read_text()) | {
        "sha256": checkpoint.sha256(folder / checkpoint.STATE)
    }
    (folder / checkpoint.MARKER).write_text(json.dumps(marker))
    with pytest.raises(Exception, match=r"[Ww]eights.only|Unsupported"):
        checkpoint.load_latest(tmp_path)
    assert not (tmp_path / "trapped").exists()
