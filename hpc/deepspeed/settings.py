"""DeepSpeed's settings that only decide speed: hpc/deepspeed/<strategy>.yaml, or a file of the user's."""

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
"""Key -> type of its value, or the keys inside it."""


def settings(file: str | Path | None = None) -> dict[str, dict[str, Any]]:
    """Strategy -> DeepSpeed's settings, of `Runtime.deepspeed`; from one file for all of them, or from each
    one's own.

    Raises InputError for a key that the spec decides or DeepSpeed does not have, and for a value of another
    type.
    """
    return {strategy: read(Path(file or FOLDER / f"{strategy}.yaml")) for strategy in STRATEGIES}


def read(path: Path) -> dict[str, Any]:
    """The settings of one file. Raises InputError."""
    return _checked({} if (found := yamlfile.load(path)) is None else found, KNOWN, str(path), "")


def _checked(found: Any, known: Mapping[str, Any], path: str, group: str) -> dict[str, Any]:
    if not isinstance(found, Mapping):
        raise InputError(f"{path}: {group.rstrip('.') or 'the file'} has to be a mapping of keys")
    checked: dict[str, Any] = {}
    for key, value in found.items():
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
    if wanted is bool or isinstance(value, bool):
        return wanted is bool and isinstance(value, bool)
    return isinstance(value, int | float) and value >= 1 and value % 1 == 0  # 8.0e+6 is a whole number
