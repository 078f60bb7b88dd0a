"""The rooms of the code: who may import whom, and a picture of who does.

    python -m tests.rooms            prints the picture
    python -m tests.rooms --write    writes it into docs/architecture.md

A room is a folder or a file of `src/leukotree` or of `hpc`. Each rule is a function of a tree of files, and
returns what breaks it. Imports inside of functions and under TYPE_CHECKING count.
"""

from __future__ import annotations

import ast
import graphlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "architecture.md"

LAYERS = (
    (
        "leukotree",
        "leukotree.errors",
        "leukotree.keys",
        "leukotree.progress",
        "leukotree.seeds",
        "leukotree.tree_choice",
    ),
    ("leukotree.csvfile", "leukotree.files", "leukotree.log", "leukotree.signals", "leukotree.yamlfile"),
    ("leukotree.config",),
    ("leukotree.runtime", "leukotree.spec", "leukotree.taxonomy"),
    ("leukotree.data", "leukotree.evaluation", "leukotree.models"),
    ("leukotree.distributed", "leukotree.records", "leukotree.stats"),
    ("leukotree.trackers",),
    ("leukotree.report", "leukotree.training"),
    ("leukotree.bench", "leukotree.inference"),
    ("leukotree.api", "leukotree.explain"),
    ("hpc", "hpc.deepspeed", "hpc.finding", "hpc.options", "hpc.tables"),
    ("hpc.slurm",),
    ("hpc.studies",),
    ("hpc.launching",),
    ("hpc.search",),
    ("hpc.doctor",),
    ("hpc.advised", "hpc.bench", "hpc.collected", "hpc.planning", "hpc.status", "hpc.submit", "hpc.watch"),
    ("hpc.verbs",),
    ("hpc.api", "hpc.cli"),
)
"""The rooms, lowest layer first. A room imports rooms of lower layers only."""
NEVER = {"leukotree.report": {"leukotree.distributed", "leukotree.models", "leukotree.training"}}
"""Rooms that a room does not import although they lie below it."""
PACKAGES = {"leukotree": {"hpc", "ray", "submitit"}, "hpc": {"timm", "webdataset"}}
"""Packages that no file imports: no launcher in the science, no model library in the launching."""

Graph = dict[str, set[str]]
"""Each module of the code and the modules of the code that it imports."""


def modules(root: Path) -> dict[str, Path]:
    """Dotted name -> file of each module of `src/leukotree` and `hpc`."""
    files = {}
    for base in (root / "src" / "leukotree", root / "hpc"):
        for file in sorted(base.rglob("*.py")):
            parts = [base.name, *file.relative_to(base).with_suffix("").parts]
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return files


def names(file: Path, module: str) -> Iterator[str]:
    """Dotted names that a file imports anywhere. `from a import b` gives `a.b`, which may be no module."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            start = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{start}.{alias.name}" for alias in node.names)


def graph(root: Path) -> Graph:
    files = modules(root)
    return {
        module: {
            target
            for name in names(file, module)
            if (target := name if name in files else name.rpartition(".")[0]) in files and target != module
        }
        for module, file in files.items()
    }


def room_of(module: str) -> str | None:
    """The room that a module belongs to; None if the table has no place for it."""
    rooms = [room for layer in LAYERS for room in layer if module == room or module.startswith(f"{room}.")]
    room = max(rooms, key=len, default=None)
    is_root = room is not None and "." not in room
    return None if is_root and module != room else room


def homeless(root: Path) -> list[str]:
    """Modules that the table has no place for."""
    return [module for module in modules(root) if room_of(module) is None]


def circle(root: Path) -> list[str]:
    """Modules that import each other in a circle, the first one again at the end; empty without a circle."""
    try:
        graphlib.TopologicalSorter(graph(root)).prepare()
    except graphlib.CycleError as error:
        return list(reversed(error.args[1]))
    return []


def upward(root: Path) -> list[str]:
    """Imports of a room that does not lie below the importing one, or that it must not import."""
    height = {room: number for number, layer in enumerate(LAYERS) for room in layer}
    wrong = []
    for module, targets in graph(root).items():
        room = room_of(module)
        for target in sorted(targets):
            other = room_of(target)
            if room is None or other is None or room == other:
                continue
            if height[other] >= height[room] or other in NEVER.get(room, ()):
                wrong.append(f"{module} imports {target}")
    return wrong


def foreign(root: Path) -> list[str]:
    """Imports of a package that the tree of the importing module must not use."""
    return [
        f"{module} imports {package}"
        for module, file in modules(root).items()
        for package in sorted({name.partition(".")[0] for name in names(file, module)})
        if package in PACKAGES[module.partition(".")[0]]
    ]


def arrows(root: Path) -> Graph:
    """Each room and the rooms that it imports, without those that one of the others imports already."""
    whole: Graph = {}
    for module, targets in graph(root).items():
        room = room_of(module) or module
        rooms = {room_of(target) or target for target in targets}
        whole.setdefault(room, set()).update(rooms - {room})
    reached: Graph = {}
    for room in graphlib.TopologicalSorter(whole).static_order():
        reached[room] = whole[room].union(*(reached[other] for other in whole[room]))
    return {
        room: {other for other in others if not any(other in reached[third] for third in others)}
        for room, others in whole.items()
    }


def picture(root: Path) -> str:
    """The rooms with their arrows as text, a block for each layer, the highest one first."""
    below = arrows(root)
    width = max(map(len, below))
    blocks = [
        "\n".join(
            f"{room:{width}}  ->  {', '.join(sorted(below[room]))}" if below[room] else room
            for room in layer
            if room in below and (below[room] or "." in room)
        )
        for layer in reversed(LAYERS)
    ]
    return "\n\n".join(filter(None, blocks))


def written(text: str, drawing: str) -> str:
    """A document whose block after the comment `rooms` is the drawing."""
    return re.sub(
        r"(<!-- rooms.*?-->\n```\n).*?(\n```)", lambda hit: hit[1] + drawing + hit[2], text, flags=re.S
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        DOCUMENT.write_text(written(DOCUMENT.read_text(), picture(ROOT)))
    else:
        print(picture(ROOT))
