"""The pretrained weights that a study needs: which there are, whether each is here, and whether it fits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from hpc import tables
from hpc.doctor import doctor
from hpc.slurm.site_model import Site
from leukotree.errors import InputError, RunFailed, one_line
from leukotree.spec import BackboneSpec, RunSpec

SUFFIXES = (".yaml", ".yml")
State = Literal["random", "here", "missing", "refused", "ok"]


@dataclass(frozen=True)
class Needed:
    """A backbone that runs need, and what is known of its weights."""

    name: str
    weights: str | None
    state: State
    """`random`: no weights are needed. `ok`: they were read and fit. `refused`: see `problem`."""
    file: str | None = None
    problem: str | None = None
    sha256: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    """What a run records of them, see `models.described`."""
    note: str | None = None

    def line(self) -> str:
        """What was found, for people."""
        if self.problem:
            return self.problem
        known = [f"sha256 {self.sha256}"] if self.sha256 else []
        if self.facts.get("weights"):
            known.append(f"licence {self.facts.get('licence') or 'unknown'}")
        return ", ".join([*([self.file] if self.file else []), *known, *([self.note] if self.note else [])])

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def specs(path: str, overrides: Sequence[str]) -> list[RunSpec]:
    """A spec for each backbone and size of images of a study or spec, or of a `backbone.name`, with its
    weights. Raises InputError for a file that is neither, and for changes to a name."""
    if not path.endswith(SUFFIXES) and not Path(path).is_file():
        if overrides:
            raise InputError(f"{' '.join(overrides)}: changes a file, and {path} is the name of a backbone")
        return [RunSpec().override({"backbone.name": path, "backbone.weights": "hub"})]
    planned = doctor.planned_by(doctor.read(path, list(overrides)), Site(), on_slurm=False)
    kinds = {(one.backbone.name, one.backbone.weights, one.data.shards): one for one in planned.specs}
    return list(kinds.values())


def listed(wanted: Iterable[RunSpec]) -> list[Needed]:
    """Which weights are here. Nothing of them is read."""
    return [_found(backbone) for backbone in dict.fromkeys(map(_plain, wanted))]


def checked(wanted: Iterable[RunSpec]) -> list[Needed]:
    """Whether the weights are here, hold tensors alone, and fit their model for images of the data's size;
    where the data are not here, for images of the size that they were made for."""
    return [
        _checked(backbone, size)
        for backbone, size in dict.fromkeys((_plain(spec), _size(spec)) for spec in wanted)
    ]


def fetched(wanted: Iterable[RunSpec]) -> list[Needed]:
    """Fetch what is not here, then check it. One that cannot be fetched does not keep the others back."""
    from leukotree.models import fetching

    rows = []
    for spec in wanted:
        try:
            fetching.fetch(spec.backbone)
        except (InputError, RunFailed) as error:
            given = spec.backbone
            rows.append(Needed(given.name, given.weights, "missing", problem=one_line(error)))
        else:
            rows.append(_checked(_plain(spec), _size(spec)))
    return rows


def table(rows: Sequence[Needed]) -> list[str]:
    """A line for each row, below a header."""
    header = ["backbone", "weights", "state", "what"]
    cells = [[row.name, row.weights or "none", row.state, row.line()] for row in rows]
    return tables.align([header, *cells])


def _plain(spec: RunSpec) -> BackboneSpec:
    """The backbone without what does not concern its weights."""
    return BackboneSpec(name=spec.backbone.name, weights=spec.backbone.weights)


def _size(spec: RunSpec) -> int | None:
    """Pixels of the images of a run's data; None where the data are not here."""
    from leukotree.data.dataset import Dataset

    try:
        return Dataset.open(spec.data.shards, ends=False).size
    except (InputError, RunFailed):
        return None


def _found(backbone: BackboneSpec) -> Needed:
    from leukotree.models import pretrained

    try:
        name = pretrained.parse(backbone.name)
        if name.kind != "timm":
            pretrained.config(name)
        file = pretrained.file(backbone)
    except InputError as error:
        return _problem(backbone, error)
    if file is None:
        return Needed(backbone.name, None, "random")
    return Needed(backbone.name, backbone.weights, "here", str(file))


def _checked(backbone: BackboneSpec, size: int | None) -> Needed:
    from leukotree.models import backbones, described, pretrained

    found = _found(backbone)
    if found.problem:
        return found
    try:
        backbones.check(backbone)
        size = size or backbones.own_size(backbone.name)
        backbones.create(backbone, size)
        facts = described.describe(backbone, size)
        file = pretrained.file(backbone)
        digest = pretrained.sha256(file) if file else None
    except InputError as error:
        return _problem(backbone, error)
    state: State = "ok" if file else "random"
    return Needed(
        backbone.name,
        backbone.weights,
        state,
        found.file,
        sha256=digest,
        facts=facts,
        note=described.note(facts),
    )


def _problem(backbone: BackboneSpec, error: InputError) -> Needed:
    from leukotree.models import pretrained

    state: State = "missing" if isinstance(error, pretrained.Missing) else "refused"
    return Needed(backbone.name, backbone.weights, state, problem=one_line(error))
