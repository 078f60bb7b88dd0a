"""JSON schemas of the files that people write: the spec of a run, a study, and a site. Editors use them to
complete keys and to mark mistakes.

A schema knows keys, types and ranges. Rules between several keys are checked when a file is read.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from hpc.slurm.site_model import Site
from hpc.studies.study import Study
from hpc.studies.varied_keys import FIXED_IN_GRID, FIXED_IN_SEARCH
from leukotree.keys import leaves
from leukotree.spec import TREE, RunSpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MODELS: dict[str, tuple[type[BaseModel], str]] = {
    "run": (RunSpec, "The spec of a LeukoTree run"),
    "study": (Study, "A LeukoTree study"),
    "site": (Site, "A cluster that LeukoTree runs on"),
}
"""Kind of file -> its model and the title of its schema."""


def schema(kind: str) -> dict[str, Any]:
    """The schema of a kind of file, one of MODELS."""
    model, title = MODELS[kind]
    tree: dict[str, Any] = model.model_json_schema(mode="validation")
    for definition in (tree, *tree.get("$defs", {}).values()):
        if TREE in definition.get("properties", {}):
            _allow_permuted(definition["properties"][TREE])
    if kind == "study":
        _name_varied_keys(tree)
    return {"$schema": DIALECT, **_in_lines(tree), "title": title}


def text(kind: str) -> str:
    """The schema as JSON with a line end."""
    return json.dumps(schema(kind), indent=1, ensure_ascii=False) + "\n"


def _in_lines(value: Any) -> Any:
    """The same tree with each description on one line, as an editor shows it."""
    if isinstance(value, list):
        return [_in_lines(part) for part in value]
    if not isinstance(value, dict):
        return value
    joined = {key: _in_lines(part) for key, part in value.items()}
    if isinstance(described := joined.get("description"), str):
        joined["description"] = " ".join(described.split())
    return joined


def _allow_permuted(field: dict[str, Any]) -> None:
    """A tree may also be given as `{permuted: SEED}`."""
    mapping = {
        "type": "object",
        "properties": {"permuted": {"type": "integer", "minimum": 0}},
        "required": ["permuted"],
        "additionalProperties": False,
    }
    field["anyOf"] = [*field["anyOf"], mapping]


def _name_varied_keys(tree: dict[str, Any]) -> None:
    """The keys of a search's space and of a grid are dotted keys of the run spec. A file gives those of a
    grid beside `zip` and `exclude`."""
    known = list(leaves(RunSpec))
    space = tree["$defs"]["SearchSettings"]["properties"]["space"]
    space["propertyNames"] = {"enum": [key for key in known if key not in FIXED_IN_SEARCH]}
    grid = tree["$defs"]["Grid"]
    values = {"type": "array", "minItems": 1}
    in_grid = [key for key in known if key not in FIXED_IN_GRID]
    grid["properties"] |= {key: dict(values) for key in in_grid}
