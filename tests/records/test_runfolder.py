"""A run's folder: how a run began and how it ended."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leukotree import seeds, yamlfile
from leukotree.errors import InputError, Preempted, RunFailed, one_line
from leukotree.records import runfolder
from leukotree.records.runfolder import SPEC, RunFolder, read_metrics, read_spec, read_status
from leukotree.spec import RunSpec
from leukotree.taxonomy import Taxonomy

DATA = {"dataset": "d" * 64}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path, RunSpec())


def test_it_has_everything_that_changes_the_result(folder: RunFolder) -> None:
    with folder.opened(Taxonomy.paper(), DATA, ranks=2):
        folder.status(state="running", epoch=1)
    assert RunSpec.model_validate(json.loads(json.dumps(RunSpec().model_dump(mode="json")))) == folder.spec
    environment = json.loads((folder.path / "env.json").read_text())
    assert environment["dataset"] == DATA["dataset"]
    assert {"torch", "timm", "numpy"} <= environment["packages"].keys()
    [attempt] = map(json.loads, (folder.path / "attempts.jsonl").read_text().splitlines())
    assert attempt["ranks"] == 2
    assert Taxonomy.from_nested(json.loads((folder.path / "taxonomy.json").read_text())) == Taxonomy.paper()


def test_a_run_draws_its_numbers_as_it_did_at_its_first_start(folder: RunFolder) -> None:
    """The first version did not note how, and drew by stage. A newer way is not guessed."""
    with folder.opened(Taxonomy.paper(), DATA, ranks=1):
        assert folder.streams == seeds.NEWEST
    file = folder.path / "env.json"
    environment = json.loads(file.read_text())
    del environment["streams"]
    file.write_text(json.dumps(environment))
    with folder.opened(Taxonomy.paper(), DATA, ranks=1):
        assert folder.streams == seeds.BY_STAGE
    file.write_text(json.dumps(environment | {"streams": 4}))
    with (
        pytest.raises(InputError, match="streams 4 is of a newer version of LeukoTree"),
        folder.opened(Taxonomy.paper(), DATA, ranks=1),
    ):
        pass


def leave(folder: RunFolder, state: str, error: BaseException) -> None:
    """Work on a run that has a state, and end by an error."""
    with folder.opened(Taxonomy.paper(), DATA, ranks=1):
        folder.predictions.write_bytes(b"")
        folder.status(state=state)
        raise error


@pytest.mark.parametrize(
    ("error", "state", "kind"),
    [
        (ValueError("two\nlines"), "failed", "error"),
        (MemoryError(), "failed", "oom"),
        (RunFailed("the loss is nan", "nan"), "failed", "nan"),
        (KeyboardInterrupt(), "preempted", "preempted"),
        (SystemExit(-1), "preempted", "preempted"),
        (Preempted("saved"), "preempted", "preempted"),
        (GeneratorExit(), "stopped", None),
    ],
)
def test_how_a_run_ends_is_its_state(
    folder: RunFolder, error: BaseException, state: str, kind: str | None
) -> None:
    with pytest.raises(type(error)):
        leave(folder, "running", error)
    status = read_status(folder.path)
    assert (status["state"], status.get("kind")) == (state, kind)
    assert status.get("message") == (one_line(error) if kind else None)


def test_what_is_done_stays_done_whatever_comes_after(folder: RunFolder) -> None:
    with pytest.raises(ValueError, match="later"):
        leave(folder, "done", ValueError("later"))
    assert read_status(folder.path)["state"] == "done"


@pytest.mark.parametrize("what", ["dataset", "weights"])
def test_other_data_or_weights_are_another_run(folder: RunFolder, what: str) -> None:
    before = {"dataset": "a", "weights": "b"}
    with folder.opened(Taxonomy.paper(), before, ranks=1):
        pass
    changed = before | {what: "c"}
    with (
        pytest.raises(InputError, match=f"its {what} changed"),
        folder.opened(Taxonomy.paper(), changed, ranks=1),
    ):
        pass


def test_a_stored_spec_may_lack_later_keys_but_an_empty_one_is_damaged(tmp_path: Path) -> None:
    (tmp_path / SPEC).write_text("variant: base\n")
    assert read_spec(tmp_path) == RunSpec(variant="base")
    (tmp_path / SPEC).write_text("")
    with pytest.raises(InputError, match=f"{SPEC}: expected a mapping of keys"):
        read_spec(tmp_path)


def test_metrics_behind_the_last_checkpoint_are_cut_off(folder: RunFolder) -> None:
    folder.path.mkdir(parents=True)
    folder.append_metrics([{"epoch": 0, "loss": 1.0}, {"epoch": 1, "loss": 0.5}])
    with open(folder.path / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 1, "lo')
    assert [row["epoch"] for row in read_metrics(folder.path)] == [0, 1]
    folder.truncate_metrics(1)
    assert (folder.path / "metrics.jsonl").read_text() == '{"epoch": 0, "loss": 1.0}\n'


@pytest.mark.parametrize("keys", [("optim.clip",), ("augment.turns", "engine.bucket_mb"), ("loss",)])
def test_a_run_without_a_later_key_is_continued(folder: RunFolder, keys: tuple[str, ...]) -> None:
    """The missing key has its default, which changes neither the run nor its name."""
    stored = folder.spec.model_dump(mode="json")
    for key in keys:
        *way, last = key.split(".")
        del (stored[way[0]] if way else stored)[last]
    folder.path.mkdir()
    (folder.path / "spec.yaml").write_text(yamlfile.dump(stored))
    with folder.opened(Taxonomy.paper(), DATA, ranks=1):
        pass
    assert yamlfile.load(folder.path / "spec.yaml") == folder.spec.model_dump(mode="json")


@pytest.mark.parametrize("change", [{"seed": 5}, {"unheard": 1}, {"seed": "many"}])
def test_a_run_of_other_values_under_its_name_is_refused(
    folder: RunFolder, change: dict[str, object]
) -> None:
    folder.path.mkdir()
    (folder.path / "spec.yaml").write_text(yamlfile.dump(folder.spec.model_dump(mode="json") | change))
    with (
        pytest.raises(InputError, match="made by another version of the defaults"),
        folder.opened(Taxonomy.paper(), DATA, ranks=1),
    ):
        pass


KEYS = ("variant: flat", "seed: 3", "data: {shards: x}", "data:\n  shards: x", "a: &b 1", "c: *b")
ODD = ("", "- 1", "x", "---", "# c", "\tseed: 1", "seed: [1,\n2]", "seed: 'a\n  b'", 'seed: "a\nb: c"')
WHOLE = st.lists(st.sampled_from(KEYS + ODD))


@given(WHOLE)
def test_a_spec_that_is_read_in_parts_is_the_spec_that_is_read_whole(lines: list[str]) -> None:
    def read(function: Callable[[Path], Any]) -> Any:
        try:
            return function(path)
        except InputError as error:
            return str(error)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / runfolder.SPEC
        path.write_text("\n".join(lines))
        assert read(runfolder._spec_tree) == read(yamlfile.load)
