"""Studies in Python: `study` builds or reads one, and `OpenStudy` gives its runs.

The package registers `study` under the entry point `leukotree.studies` (pyproject.toml). So `leukotree.study`
finds it, and the science imports no launcher.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leukotree import files, yamlfile
from leukotree.errors import InputError

if TYPE_CHECKING:
    from hpc.studies.study import Study
    from leukotree.report.summary import StudySummary


def study(file: str | Path | None = None, /, *overrides: str, **fields: Any) -> OpenStudy:
    """A study from its file or its fields, checked as each command checks it.

    Args:
        file: the YAML file, or the name of a study whose file is in the current folder or in `sweeps`. None
            to give all fields.
        overrides: changes of the file as in a command, such as "search.trials=4".
        fields: fields of the study; beside a file they replace those of the file. Dotted keys also work, as
            in `study("a.yaml", **{"base.optim.lr": 1e-3})`.

    Examples: `study("sweeps/phantom.yaml")`, `study(study="mine", variants=["flat", "base"])`.

    Raises InputError naming the file or the key.
    """
    from hpc.studies import study as studies

    if file is None:
        if overrides:
            raise InputError(f"study: {overrides[0]!r} changes a file; name the file first")
        return OpenStudy(studies.build(fields, "study"))
    return OpenStudy(studies.load(_path(file), overrides, fields))


def _path(file: str | Path) -> Path:
    """The path of a study's file, which may be given by the study's name."""
    from hpc import advised

    path = Path(file)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    found = advised.file_of(str(file))
    if found is None:
        raise InputError(
            f"{file}: no study of this name in this folder or in sweeps; give the path of its file"
        )
    return found


@dataclass(frozen=True, eq=False)
class OpenStudy:
    """A study, and what its runs have given so far."""

    plan: Study
    """Its fields, checked."""

    @property
    def name(self) -> str:
        return self.plan.study

    def summary(self) -> StudySummary:
        """What a report is made from: the finished runs that the study expects today, and its searches.

        Raises InputError as `leukotree report`: for stale runs, damaged files, and before the first run.
        """
        from hpc import collected

        return collected.summary(self.plan)

    def yaml(self) -> str:
        """The fields that are not defaults, as the text of a study file."""
        fields = self.plan.model_dump(mode="json", exclude_defaults=True)
        return yamlfile.dump(_in_file_form(fields))

    def save(self, path: str | Path) -> Path:
        """Write `yaml` to a new file, which the commands take. Raises InputError where there is a file."""
        path = Path(path)
        if path.exists():
            raise InputError(f"{path}: is there already; name another file")
        files.write_atomic(path, self.yaml())
        return path

    def __repr__(self) -> str:
        plan, folds = self.plan, self.plan.folds
        repeats = f" x {folds.repeats} repeats" if folds.repeats > 1 else ""
        lines = [
            f"Study {plan.study}: {', '.join(plan.variants)}",
            f"  data       {plan.base.data.shards}",
            f"  backbone   {plan.base.backbone.name}, {plan.base.optim.epochs} epochs",
            f"  folds      {folds.outer} outer{repeats}, {folds.inner} inner",
            f"  seeds      {', '.join(map(str, plan.seeds))}",
        ]
        if plan.search.trials:
            keys = _short(", ".join(plan.search.space))
            lines.append(f"  search     {plan.search.trials} trials of {keys or 'no key'}")
        if plan.grid is not None and plan.has_grid:
            lines.append(f"  grid       {_short(', '.join(plan.grid.values()))}")
        return "\n".join([*lines, f"  runs       {plan.root}"])


def _short(text: str, most: int = 64) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _in_file_form(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a study as a file has them: axes without the forms that they do not use, and the keys of the
    grid in the grid itself."""
    fields = dict(fields)
    if grid := fields.get("grid"):
        fields["grid"] = {**grid.get("product", {}), **{k: v for k, v in grid.items() if k != "product"}}
    return fields
