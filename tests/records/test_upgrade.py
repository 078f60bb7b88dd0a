"""Specs that an earlier version stored mean what their runs really did. A run whose keys mean something else
today is no run of today."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from leukotree import yamlfile
from leukotree.errors import InputError
from leukotree.records import compared
from leukotree.records.compared import Inputs
from leukotree.records.runfolder import SPEC, RunFolder, outdated, read_spec
from leukotree.spec import RunSpec, Variant
from leukotree.taxonomy import Taxonomy

pytestmark = pytest.mark.usefixtures("elsewhere")

LATER = ("normalisation", "variance_lr")
"""Keys of `loss` that an earlier version did not have."""
SAME: list[dict[str, Any]] = [
    {},
    {"variant": "base", "loss.tau": 1.0},
    {"variant": "flat", "loss.gamma": 0.5},
    {"loss.weighting": "hxe"},
    {"variant": "flat", "loss.weighting": "hxe", "loss.hxe_alpha": 0.4},
    {"variant": "base", "loss.kind": "conditional", "loss.tau": 0.0},
]
"""Settings that do the same as before."""
CHANGED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"loss.kind": "conditional"}, {"loss.tau": 0.0, "loss.normalisation": "all"}),
    ({"loss.kind": "conditional", "loss.tau": 0.0}, {"loss.normalisation": "all"}),
    ({"variant": "flat", "loss.kind": "soft"}, {"loss.tau": 0.0, "loss.normalisation": "all"}),
    ({"loss.kind": "marginal", "loss.tau": 1.0}, {"loss.tau": 0.0, "loss.normalisation": "all"}),
    ({"variant": "base", "loss.kind": "conditional"}, {"loss.tau": 0.0}),
    (
        {"loss.weighting": "uncertainty", "optim.lr": 1e-5, "optim.head_lr_multiplier": 10},
        {"loss.variance_lr": 1e-4},
    ),
]
"""Settings, and what they were before by the keys of today."""
UNSAYABLE: list[dict[str, Any]] = [
    {"loss.weighting": "hxe", "loss.hxe_alpha": 0.4},
    {"variant": "base", "loss.weighting": "hxe", "loss.hxe_alpha": 0.4},
    {"loss.kind": "marginal", "loss.weighting": "hxe", "loss.hxe_alpha": 0.1, "loss.tau": 0.0},
]
"""Settings with a weight for each child, which no key says today."""


def earlier(root: Path, spec: RunSpec) -> RunFolder:
    """The folder of a run as an earlier version stored it."""
    folder, fields = RunFolder(root, spec), spec.model_dump(mode="json")
    fields["loss"] = {key: value for key, value in fields["loss"].items() if key not in LATER}
    folder.path.mkdir(parents=True)
    (folder.path / SPEC).write_text(yamlfile.dump(fields))
    return folder


@pytest.mark.parametrize("settings", SAME)
def test_what_does_the_same_as_before_is_continued(tmp_path: Path, settings: dict[str, Any]) -> None:
    spec = RunSpec().override(settings)
    folder = earlier(tmp_path, spec)
    assert read_spec(folder.path) == spec
    assert not outdated(folder.path)
    folder.check({})
    assert compared.changed(folder.path, Inputs.of(spec)) is None
    with folder.opened(Taxonomy.paper(), {}, ranks=1):
        pass
    assert yamlfile.load(folder.path / SPEC) == spec.model_dump(mode="json")


@pytest.mark.parametrize(("settings", "really"), CHANGED)
def test_what_did_something_else_is_read_as_what_it_did_and_refused(
    tmp_path: Path, settings: dict[str, Any], really: dict[str, Any]
) -> None:
    spec = RunSpec().override(settings)
    folder = earlier(tmp_path, spec)
    assert read_spec(folder.path) == spec.override(really)
    _refused(folder)


@pytest.mark.parametrize("settings", UNSAYABLE)
def test_what_no_key_can_say_is_refused_too(tmp_path: Path, settings: dict[str, Any]) -> None:
    folder = earlier(tmp_path, RunSpec().override(settings))
    assert read_spec(folder.path).loss.weighting == "hxe"
    _refused(folder)


def _refused(folder: RunFolder) -> None:
    assert outdated(folder.path)
    with pytest.raises(InputError, match=f"{SPEC}: made by another version of the defaults") as error:
        folder.check({})
    assert "\n" not in str(error.value)
    change = compared.changed(folder.path, Inputs.of(folder.spec))
    assert change is not None
    assert "in which the loss of this name had other weights" in change.reason


@pytest.mark.parametrize("settings", [*SAME, *(settings for settings, _ in CHANGED), *UNSAYABLE])
def test_a_run_of_today_is_itself(tmp_path: Path, settings: dict[str, Any]) -> None:
    spec = RunSpec().override(settings)
    folder = RunFolder(tmp_path, spec)
    with folder.opened(Taxonomy.paper(), {}, ranks=1):
        pass
    assert read_spec(folder.path) == spec
    assert not outdated(folder.path)


@pytest.mark.parametrize("text", ["", "- a list\n", "loss: focal\n", "seed: 1\n", "loss:\n  kind: soft\n"])
def test_a_file_that_is_no_whole_spec_is_left_to_its_reader(tmp_path: Path, text: str) -> None:
    (tmp_path / SPEC).write_text(text)
    assert outdated(tmp_path) == ("soft" in text)
    assert not outdated(tmp_path / "absent")


def search(root: Path, kinds: list[str], space: dict[str, Any], variant: Variant = "multilabel") -> Path:
    """The folder of a search whose trials had these kinds of loss; the first was chosen."""
    folder = root / "search" / variant / "fold0"
    for number, kind in enumerate(kinds):
        spec = RunSpec().override({"variant": variant, "loss.kind": kind})
        earlier(folder / "runs" / f"{number:05}", spec)
    (folder / "search.yaml").write_text(yamlfile.dump({"study": "s", "search": {"space": space}}))
    (folder / "best.yaml").write_text(yamlfile.dump({"trial": 0, "chosen": {}}))
    return folder


def test_a_search_whose_chosen_trial_did_something_else_is_refused(tmp_path: Path) -> None:
    change = compared.changed_search(search(tmp_path, ["conditional"], {"optim.lr": {"uniform": [0, 1]}}))
    assert change is not None
    assert "runs/00000/multilabel-" in str(change)
    assert compared.changed_search(search(tmp_path / "other", ["focal", "focal"], {})) is None


def test_a_search_that_compared_losses_is_refused_for_any_of_its_trials(tmp_path: Path) -> None:
    space = {"loss.kind": {"choice": ["focal", "conditional"]}}
    change = compared.changed_search(search(tmp_path, ["focal", "conditional"], space))
    assert change is not None
    assert "runs/00001/multilabel-" in str(change)
