"""Arbitrary edits of a valid spec, study, manifest or dataset.json: accepted, or refused in one line, and
nothing is begun.

What would begin work (a run, a search, the writing of shards) is replaced by a record that it was asked for;
a refused input must not have asked.
"""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpc.launching import runs
from hpc.search import choice, sweep
from leukotree.data import pack_folder
from leukotree.training import run
from tests.helpers.commandline import leukotree
from tests.helpers.small_data import write_manifest

EDITS = settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
MORE_EDITS = settings(EDITS, max_examples=300)

SPEC: dict[str, Any] = {
    "variant": "multilabel",
    "seed": 3,
    "data": {"shards": "shards", "test_fold": 1, "inner": {"folds": 2, "fold": 1}},
    "augment": {"crop_scale": [0.8, 1.0], "flips": True, "jitter": 0.1, "stain": 0.0},
    "backbone": {"name": "test_vit", "weights": None, "drop_path": 0.0},
    "loss": {"gamma": 2.0, "tau": 0.5, "isolation": "shared"},
    "optim": {"lr": 1e-3, "weight_decay": 0.05, "batch_size": 8, "epochs": 1, "warmup": 0.1, "clip": 1.0},
    "engine": {"strategy": "ddp", "precision": "fp32", "micro_batch": 4},
}
STUDY: dict[str, Any] = {
    "study": "demo",
    "base": {key: SPEC[key] for key in ("augment", "backbone", "loss", "optim", "engine")}
    | {"data": {"shards": "shards"}},
    "variants": ["flat", "multilabel"],
    "folds": {"outer": 4, "inner": 2},
    "seeds": [0, 1],
    "search": {
        "nested": True,
        "algorithm": "tpe",
        "scheduler": "asha",
        "rungs": "epochs",
        "trials": 2,
        "rerun_top": 1,
        "rerun_seeds": 2,
        "space": {
            "loss.gamma": {"uniform": [0, 5]},
            "optim.lr": {"loguniform": [1e-5, 1e-2]},
            "optim.batch_size": {"choice": [8, 16]},
        },
    },
    "grid": {"loss.tau": [0.0, 0.5], "optim.weight_decay": [0.0, 0.1]},
    "decision": {"flat": "joint", "multilabel": "joint"},
    "rope": 0.01,
    "primary": [["multilabel", "flat"]],
}

ODD = [
    "",
    ".",
    "..",
    "/",
    "\0",
    "\n",
    "\x1b[2J",
    "\ud800",
    "$HOME",
    "hub",
    "flat",
    "shards",
    "run.yaml",
    "a.b",
    10**30,
    -(2**63),
]
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-3, 9),
    st.floats(),
    st.text(max_size=12),
    st.dates(),
    st.binary(max_size=4),
    st.sampled_from(ODD),
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=4)
    ),
    max_leaves=8,
)
plain = values.filter(lambda value: _is_json(value))


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def places(tree: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every value of a tree."""
    yield way
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inner:
        yield from places(value, (*way, key))


@st.composite
def edited(draw: st.DrawFn, tree: Any, new: st.SearchStrategy[Any]) -> Any:
    """A tree after one to three edits: a value replaced, a key removed, renamed or added."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        way = draw(st.sampled_from(list(places(tree))))
        if not way:
            if draw(st.integers(0, 9)) == 0:
                return draw(new)
            continue
        *before, last = way
        owner = tree
        for key in before:
            owner = owner[key]
        what = draw(st.sampled_from(["replace", "replace", "remove", "rename", "add"]))
        if what == "remove" or (what == "rename" and isinstance(owner, list)):
            del owner[last]
        elif what == "rename":
            owner[draw(st.text(max_size=8))] = owner.pop(last)
        elif what == "replace":
            owner[last] = draw(new)
        elif isinstance(owner, list):
            owner.insert(last, draw(new))
        else:
            owner[draw(st.text(max_size=8))] = draw(new)
    return tree


@st.composite
def scribbled(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes after one to four edits: some replaced, removed, repeated or put in."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        stop = draw(st.integers(start, min(len(content), start + 40)))
        content = (
            content[:start]
            + draw(st.sampled_from([b"", content[start:stop] * 2]) | st.binary(max_size=8))
            + content[stop:]
        )
    return content


def as_yaml(tree: Any) -> bytes:
    return yaml.safe_dump(tree, sort_keys=False).encode(errors="surrogatepass")


def anything(
    tree: Any, new: st.SearchStrategy[Any], write: Callable[[Any], bytes]
) -> st.SearchStrategy[bytes]:
    """The bytes of a file that was valid before its edits."""
    return edited(tree, new).map(write) | scribbled(write(tree))


@pytest.fixture(scope="module")
def home(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    shutil.copytree(shards, folder / "shards")
    return folder


@contextlib.contextmanager
def nothing_begins() -> Iterator[list[str]]:
    """Names of the pieces of work that were begun."""
    asked: list[str] = []

    def note(name: str, answer: Any) -> Callable[..., Any]:
        def noted(*_: Any, **__: Any) -> Any:
            asked.append(name)
            return answer

        return noted

    result = run.RunResult(Path("results"), "done", {})
    with (
        mock.patch.object(runs, "run_spec", note("run", result)),
        mock.patch.object(runs, "run_many", note("runs", runs.Outcome())),
        mock.patch.object(runs, "prepare_ranks", note("ranks", None)),
        mock.patch.object(sweep, "sweep", note("search", {})),
        mock.patch.object(
            choice, "chosen", lambda study, *_, **__: {variant: {} for variant in study.variants}
        ),
    ):
        yield asked


def judge(home: Path, *command: object, names: str) -> bool:
    """Whether a command takes its input; asserts that it refuses in one line that names the file, a key or a
    folder, and begins nothing then."""
    before = sorted(path.name for path in home.iterdir())
    with nothing_begins() as asked:
        done = leukotree(*command, cwd=home)
    assert done.returncode in (0, 2), done.stderr
    if done.returncode == 2:
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert any(
            name in done.stderr for name in (names, *SPEC, *STUDY, "no such folder", "cannot be read")
        ), done.stderr
        assert set(asked) <= {"ranks"}, "the imports of ranks may begin before the checks"
        assert sorted(path.name for path in home.iterdir()) == before
    return done.returncode == 0


def test_the_valid_ones_are_taken(home: Path) -> None:
    """Without this the tests below would prove nothing."""
    (home / "valid-run.yaml").write_bytes(as_yaml(SPEC))
    (home / "valid-study.yaml").write_bytes(as_yaml(STUDY))
    assert judge(home, "train", "valid-run.yaml", names="valid-run.yaml")
    for verb in ("sweep", "folds"):
        assert judge(home, verb, "valid-study.yaml", names="valid-study.yaml")
    assert judge(home, "grid", "valid-study.yaml", "--dry-run", names="valid-study.yaml")


@pytest.mark.slow("tries many files")
@MORE_EDITS
@given(anything(SPEC, values, as_yaml))
def test_a_spec(home: Path, content: bytes) -> None:
    (home / "run.yaml").write_bytes(content)
    judge(home, "train", "run.yaml", names="run.yaml")


@EDITS
@given(anything(STUDY, values, as_yaml), st.sampled_from([["sweep"], ["folds"], ["grid", "--dry-run"]]))
@pytest.mark.slow("tries many made-up files")
def test_a_study(home: Path, content: bytes, verb: list[str]) -> None:
    (home / "study.yaml").write_bytes(content)
    judge(home, verb[0], "study.yaml", *verb[1:], names="study")


@EDITS
@given(st.lists(st.text(max_size=30), min_size=1, max_size=2))
@pytest.mark.slow("tries many made-up overrides")
def test_overrides(home: Path, overrides: list[str]) -> None:
    (home / "over.yaml").write_bytes(as_yaml(SPEC))
    judge(
        home,
        "train",
        "over.yaml",
        *(f"optim.lr={text}" for text in overrides),
        *(f"{text}=1" for text in overrides),
        names="",
    )


@pytest.fixture(scope="module")
def description(home: Path) -> dict[str, Any]:
    description: dict[str, Any] = json.loads((home / "shards/dataset.json").read_text())
    return description


@MORE_EDITS
@given(st.data())
@pytest.mark.slow("tries many made-up files")
def test_a_dataset_json(home: Path, description: dict[str, Any], data: st.DataObject) -> None:
    """Edits that `open` cannot know to be wrong are refused when the first sample is read, see
    test_broken."""
    (home / "described.yaml").write_bytes(as_yaml(SPEC))
    content = data.draw(anything(description, plain, lambda tree: json.dumps(tree).encode()))
    kept = (home / "shards/dataset.json").read_bytes()
    try:
        (home / "shards/dataset.json").write_bytes(content)
        judge(home, "train", "described.yaml", names="shards")
    finally:
        (home / "shards/dataset.json").write_bytes(kept)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    write_manifest(folder, patients=2, images=1)
    return folder


PATHS = ["", ".", "..", "/", "/etc/passwd", "../raw/normal/0_0.png", "normal/0_0.png"]
cells = st.text(max_size=12) | st.sampled_from(
    [*PATHS, "normal", "AML", "AMLL", "patient", "slide", "\0", '"', "\n"]
)


@st.composite
def tables(draw: st.DrawFn, text: str) -> bytes:
    """A CSV after edits of its cells, rows and columns, or of its bytes."""
    import io

    if draw(st.booleans()):
        return draw(scribbled(text.encode()))
    frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    for _ in range(draw(st.integers(1, 3))):
        what = draw(st.sampled_from(["cell", "cell", "cell", "column", "rename", "add", "row", "again"]))
        column = draw(st.sampled_from(list(frame.columns) or [""]))
        if what == "cell" and len(frame) and len(frame.columns):
            frame.iat[draw(st.integers(0, len(frame) - 1)), draw(st.integers(0, len(frame.columns) - 1))] = (
                draw(cells)
            )
        elif what == "column":
            frame = frame.drop(columns=[column], errors="ignore")
        elif what == "rename":
            frame = frame.rename(columns={column: draw(cells)})
        elif what == "add":
            frame[draw(st.sampled_from(["mask", "group", "root", "other"]))] = draw(cells)
        elif what == "row":
            frame = frame.iloc[draw(st.integers(0, max(0, len(frame) - 1))) :]
        else:
            frame = pd.concat([frame, frame.iloc[:1]])
    return frame.to_csv(index=False).encode(errors="surrogatepass")


@EDITS
@given(st.data())
@pytest.mark.slow("tries many made-up files")
def test_a_manifest(raw: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """What is taken is packed, which is quick here, and then opens; what is refused leaves nothing."""
    home = tmp_path_factory.mktemp("packing")
    (home / "images").symlink_to(raw)
    content = data.draw(tables((raw / "manifest.csv").read_text()))
    (raw / "edited.csv").write_bytes(content)
    with mock.patch.object(pack_folder, "fill", wraps=pack_folder.fill) as filled:
        done = leukotree(
            "pack", "images/edited.csv", "out", "--folds", 2, "--size", 8, "--workers", 1, cwd=home
        )
    assert done.returncode in (0, 2), done.stderr
    if done.returncode == 0:
        assert filled.called
        assert (home / "out/dataset.json").exists()
        return
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert sorted(path.name for path in home.iterdir()) == ["images"]
