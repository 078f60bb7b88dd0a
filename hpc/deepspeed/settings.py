"""DeepSpeed's settings that only decide speed: from hpc/deepspeed/<strategy>.yaml, or from a user's file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leukotree import yamlfile
from leukotree.errors import InputError

FOLDER = Path(__file__).parent
STRATEGIES = ("zero0", "zero1", "zero2", "zero3")

_FLAGS = (
    "overlap_comm",
    "contiguous_gradients",
    "reduce_scatter",
    "allgather_partitions",
    "round_robin_gradients",
)
_ELEMENTS = (
    "reduce_bucket_size",
    "allgather_bucket_size",
    "sub_group_size",
    "stage3_prefetch_bucket_size",
    "stage3_max_live_parameters",
    "stage3_max_reuse_distance",
    "stage3_param_persistence_threshold",
)
KNOWN: dict[str, Any] = {
    "zero_optimization": {
        **dict.fromkeys(_FLAGS, bool),
        **dict.fromkeys(_ELEMENTS, int),
        "offload_optimizer": {"pin_memory": bool, "buffer_count": int},
        "offload_param": {"pin_memory": bool, "buffer_count": int, "buffer_size": int, "max_in_cpu": int},
    }
}
"""Key -> the type of its value, or the keys inside it."""


def settings(file: str | Path | None = None) -> dict[str, dict[str, Any]]:
    """Strategy -> DeepSpeed's settings, for `Runtime.deepspeed`. `file`: one file for all strategies; None
    for the file of each.

    Raises InputError for a key that the spec decides, for an unknown key, and for a value of a wrong type.
    """
    return {strategy: read(Path(file or FOLDER / f"{strategy}.yaml")) for strategy in STRATEGIES}


def read(path: Path) -> dict[str, Any]:
    """The settings of one file. Raises InputError."""
    tree = yamlfile.load(path)
    return _checked({} if tree is None else tree, KNOWN, str(path), "")


def _checked(tree: Any, known: Mapping[str, Any], path: str, group: str) -> dict[str, Any]:
    """The settings of a group of keys, with values of their types. `group`: the path of the group, such as
    `zero_optimization.`."""
    if not isinstance(tree, Mapping):
        raise InputError(f"{path}: {group.rstrip('.') or 'the file'} must be a mapping of keys")
    checked: dict[str, Any] = {}
    for key, value in tree.items():
        if key not in known:
            rest = f"the spec decides the rest (engine, optim); known: {', '.join(known)}"
            raise InputError(f"{path}: {group}{key} is not a setting of speed; {rest}")
        wanted = known[key]
        if isinstance(wanted, Mapping):
            checked[key] = _checked(value, wanted, path, f"{group}{key}.")
        elif _is(value, wanted):
            checked[key] = wanted(value)
        else:
            what = "true or false" if wanted is bool else "a whole number above 0"
            raise InputError(f"{path}: {group}{key}: expected {what}, got {value!r}")
    return checked


def _is(value: Any, wanted: type) -> bool:
    """Whether a value is a flag or, for `int`, a whole number of 1 or more."""
    if wanted is bool or isinstance(value, bool):
        return wanted is bool and isinstance(value, bool)
    return isinstance(value, int | float) and value >= 1 and value % 1 == 0  # 8.0e+6 is a whole number
