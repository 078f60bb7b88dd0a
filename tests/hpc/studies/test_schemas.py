"""The JSON schemas of specs, studies and sites are those of the code, and take what the code takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hpc.slurm.site_model import Site
from hpc.studies import schemas
from hpc.studies.study import Study
from leukotree import yamlfile
from leukotree.config import parse
from leukotree.errors import InputError
from leukotree.spec import RunSpec
from tests.helpers.commandline import leukotree

ROOT = Path(__file__).parents[3]
STUDIES, SITES = sorted((ROOT / "sweeps").glob("*.yaml")), sorted((ROOT / "slurm/site").glob("*.yaml"))
HEADER = "# yaml-language-server: $schema="


def errors(kind: str, tree: Any) -> list[str]:
    validator = jsonschema.Draft202012Validator(schemas.schema(kind))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(tree)]


@pytest.mark.parametrize("kind", schemas.MODELS)
def test_the_committed_schema_is_that_of_the_code(kind: str, tmp_path: Path) -> None:
    """If it is not: `leukotree schema KIND > docs/schemas/KIND.json`."""
    done = leukotree("schema", kind, cwd=tmp_path)
    assert done.stdout == (ROOT / f"docs/schemas/{kind}.json").read_text(encoding="utf-8")
    jsonschema.Draft202012Validator.check_schema(schemas.schema(kind))


@pytest.mark.parametrize("file", [*STUDIES, *SITES], ids=lambda file: file.stem)
def test_the_files_of_this_repository_fit_their_schemas(file: Path) -> None:
    kind = "study" if file in STUDIES else "site"
    assert errors(kind, yamlfile.load(file) or {}) == []
    named = [line for line in file.read_text().splitlines() if line.startswith(HEADER)]
    if file.stem != "default":  # its comments are keys to uncomment
        assert [(file.parent / line.removeprefix(HEADER)).resolve() for line in named] == [
            ROOT / f"docs/schemas/{kind}.json"
        ]


def test_a_stored_spec_fits_its_schema() -> None:
    assert errors("run", yaml.safe_load(RunSpec().dump())) == []


@pytest.mark.parametrize(
    ("kind", "tree"),
    [
        ("run", {"optim": {"learning_rate": 1}}),
        ("run", {"variant": "tree"}),
        ("run", {"optim": {"lr": 0}}),
        ("run", {"tree": {"permuted": "a"}}),
        ("run", {"augment": {"crop_scale": [0.1, 0.2, 0.3]}}),
        ("study", {}),
        ("study", {"study": "a/b"}),
        ("study", {"study": "a", "search": {"space": {"optim.speed": {"uniform": [0, 1]}}}}),
        ("study", {"study": "a", "search": {"space": {"optim.epochs": {"choice": [1, 2]}}}}),
        ("study", {"study": "a", "grid": {"optim.lr": 0.1}}),
        ("study", {"study": "a", "grid": {"optim.speed": [0.1]}}),
        ("study", {"study": "a", "decision": {"wide": "joint"}}),
        ("site", {"time": "long"}),
        ("site", {"gpus": 2}),
    ],
)
def test_a_mistake_is_one_in_the_schema_too(kind: str, tree: dict[str, Any]) -> None:
    assert errors(kind, tree)
    with pytest.raises(InputError):
        parse(schemas.MODELS[kind][0], tree, "x")


@pytest.mark.parametrize(
    ("kind", "tree"),
    [
        ("run", {"tree": {"permuted": 3}}),
        ("run", {"tree": "paper", "loss": {"level_weights": [1, 0.5]}}),
        ("study", {"study": "a", "grid": {"tree": ["data", {"permuted": 1}]}}),
        ("study", {"study": "a", "grid": {"zip": [{"optim.lr": [1, 2], "optim.epochs": [3, 4]}]}}),
        (
            "study",
            {"study": "a", "costs": {"a": {"b": 2}}, "variants": ["flat"], "decision": {"flat": "joint"}},
        ),
        ("study", {"study": "a", "search": {"space": {"optim.lr": {"choice": [0.1, 0.2]}}}}),
        ("site", {"extra": {"exclusive": True}, "setup": ["module load cuda"]}),
    ],
)
def test_a_form_that_the_code_takes_fits(kind: str, tree: dict[str, Any]) -> None:
    parse(schemas.MODELS[kind][0], tree, "x")
    assert errors(kind, tree) == []


def properties(tree: Any) -> Iterator[dict[str, Any]]:
    """Each key of a schema, at any depth."""
    if isinstance(tree, dict):
        yield from tree.get("properties", {}).values()
        for value in tree.values():
            yield from properties(value)


@pytest.mark.parametrize("kind", schemas.MODELS)
def test_descriptions_are_on_one_line(kind: str) -> None:
    texts = [key["description"] for key in properties(schemas.schema(kind)) if "description" in key]
    assert len(texts) > 15
    assert not any("\n" in text for text in texts)


@given(
    lr=st.floats(1e-9, 10),
    batch=st.integers(1, 512),
    variant=st.sampled_from(["flat", "base", "multilabel", "ensemble"]),
    weights=st.one_of(st.none(), st.text(max_size=9)),
    shards=st.text(max_size=9),
)
def test_each_spec_that_the_code_takes_fits(
    lr: float, batch: int, variant: str, weights: str | None, shards: str
) -> None:
    tree = {
        "variant": variant,
        "optim": {"lr": lr, "batch_size": batch},
        "backbone": {"weights": weights},
        "data": {"shards": shards},
    }
    parse(RunSpec, tree, "x")
    assert errors("run", tree) == []


def test_the_kinds_of_the_command_are_those_of_the_schemas() -> None:
    from hpc.verbs import writing

    assert tuple(schemas.MODELS) == writing.SCHEMAS
    assert {model for model, _ in schemas.MODELS.values()} == {RunSpec, Study, Site}
