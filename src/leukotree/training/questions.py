"""What is asked about models before a run starts. torch and timm are imported where an answer needs them.

`DIRECT` builds the models to answer. `kept` also remembers the answers in a file of the user, so that a plan
of ten thousand runs need not import torch. Answers of other versions of torch, timm or this code do not
count. A refusal is never kept: it is found again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from leukotree import files
from leukotree.models import pretrained
from leukotree.models.stages import Stage
from leukotree.spec import BackboneSpec, RunSpec

PACKAGES = ("torch", "timm", "peft")
CODE = Path(__file__).parents[1]
CODE_OF_ANSWERS = ("models/*.py", "training/questions.py", "training/throughput.py")
"""The files of this package that decide an answer."""
Parts = Sequence[tuple[Stage, Sequence[int] | None]]
"""Stages with their levels, as for `classifier.build`."""


class Questions:
    """Answers that are found by building the models on the meta device: no memory, no weights."""

    def check_backbone(self, backbone: BackboneSpec) -> None:
        """As `backbones.check`. Raises InputError."""
        from leukotree.models import backbones

        backbones.check(backbone)

    def fits(self, spec: RunSpec, stage: Stage, size: int) -> None:
        """Raises InputError where the pretrained weights do not fit the model of a stage."""
        if spec.backbone.weights is None:
            return
        from leukotree.models.classifier import build

        build(spec, stage, size)

    def note(self, backbone: BackboneSpec, size: int) -> str | None:
        """As `described.note`, of a backbone for images of `size` pixels."""
        from leukotree.models import described

        return described.note(described.describe(backbone, size))

    def blocks(self, name: str) -> int | None:
        """As `isolation.blocks`."""
        from leukotree.models import isolation

        return isolation.blocks(name)

    def check_trained(self, spec: RunSpec) -> None:
        """As `trained_part.check`. Raises InputError."""
        from leukotree.models import trained_part

        trained_part.check(spec)

    def parameters(self, spec: RunSpec, parts: Parts, size: int) -> tuple[int, int]:
        """The number of parameters of all models, and of those that train. Raises InputError as
        `classifier.build`."""
        from leukotree.models.classifier import build_empty, n_parameters, n_trained

        models = build_empty(spec, parts, size)
        return n_parameters(models), n_trained(models)

    def work(self, spec: RunSpec, parts: Parts, size: int) -> tuple[int, list[int | None]]:
        """(`parameters`, FLOPs of an image's forward pass of each model as `throughput.forward_flops`)."""
        from leukotree.models.classifier import build_empty, n_parameters
        from leukotree.training import throughput

        models = build_empty(spec, parts, size)
        return n_parameters(models), [throughput.of_model(model, spec, size) for model in models]


DIRECT = Questions()


class Kept(Questions):
    """Remembers the answers in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._answers = _read(path)

    def check_backbone(self, backbone: BackboneSpec) -> None:
        asked = super().check_backbone
        self._answer(["backbone", *_name(backbone.name), *self._weights(backbone)], lambda: asked(backbone))

    def fits(self, spec: RunSpec, stage: Stage, size: int) -> None:
        asked = super().fits
        weights = self._weights(spec.backbone)
        if weights != [None]:
            self._answer(
                ["fits", *_model(spec, [(stage, None)], size), *weights], lambda: asked(spec, stage, size)
            )

    def note(self, backbone: BackboneSpec, size: int) -> str | None:
        asked = super().note
        question = ["note", *_name(backbone.name), backbone.weights, *self._weights(backbone), size]
        answer: str | None = self._answer(question, lambda: asked(backbone, size))
        return answer

    def _weights(self, backbone: BackboneSpec) -> list[Any]:
        """The file of the weights and its state on the disk: it may be another one now. Raises InputError as
        `pretrained.file`."""
        origin, name = None, pretrained.parse(backbone.name)
        if backbone.weights == "hub" and name.kind == "timm":

            def asked() -> list[Any]:
                found = pretrained.of_timm(name.place)
                return [found.repository, found.revision, list(found.names), found.url]

            repository, revision, names, url = self._answer(["origin", name.place], asked)
            origin = pretrained.Origin(repository, revision, tuple(names), url)
        file = pretrained.file(backbone, origin)
        return [None] if file is None else [str(file), *files.state(file.stat())]

    def blocks(self, name: str) -> int | None:
        asked = super().blocks
        answer: int | None = self._answer(["blocks", *_name(name)], lambda: asked(name))
        return answer

    def check_trained(self, spec: RunSpec) -> None:
        asked = super().check_trained
        part = spec.backbone.model_dump(include={"name", "train", "last", "lora"})
        question = ["trained", *_name(spec.backbone.name), part, spec.optim.layer_decay == 1]
        self._answer(question, lambda: asked(spec))

    def parameters(self, spec: RunSpec, parts: Parts, size: int) -> tuple[int, int]:
        asked = super().parameters
        all_of_them, trained = self._answer(
            ["parameters", *_model(spec, parts, size)], lambda: asked(spec, parts, size)
        )
        return all_of_them, trained

    def work(self, spec: RunSpec, parts: Parts, size: int) -> tuple[int, list[int | None]]:
        asked = super().work
        parameters, flops = self._answer(
            ["work", *_model(spec, parts, size)], lambda: asked(spec, parts, size)
        )
        return parameters, flops

    def _answer(self, question: list[Any], ask: Callable[[], Any]) -> Any:
        key = json.dumps(question)
        if key not in self._answers:
            answer = ask()
            self._answers = {**_read(self.path), **self._answers, key: answer}
            with contextlib.suppress(OSError):  # a home that cannot be written: the next process asks again
                files.write_atomic(self.path, json.dumps(self._answers))
        return self._answers[key]


@functools.cache
def kept() -> Questions:
    """The answers of this user, for the versions of today."""
    cache = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = Path(cache) if cache else Path.home() / ".cache"
    except RuntimeError:  # a user without a home
        return DIRECT
    return Kept(folder / "leukotree" / f"models-{_versions()}.json")


def _versions() -> str:
    """12 hex digits of what decides the answers: the versions of the packages, and this code."""
    digest = hashlib.sha256(json.dumps([metadata.version(name) for name in PACKAGES]).encode())
    for pattern in CODE_OF_ANSWERS:
        for path in sorted(CODE.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _read(path: Path) -> dict[str, Any]:
    """The answers of a file; {} without a file, and for a damaged one."""
    try:
        answers = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return answers if isinstance(answers, dict) else {}


def _name(name: str) -> list[str]:
    """The name of a backbone and, where timm does not have it, the digest of the file that decides its
    shapes."""
    digest = pretrained.digest(name)
    return [name] if digest is None else [name, digest]


def _model(spec: RunSpec, parts: Parts, size: int) -> list[Any]:
    """All that the shapes of a run's models depend on, as JSON."""
    heads = [
        [{name: len(classes) for name, classes in stage.heads.items()}, stage.levels, stage.above, levels]
        for stage, levels in parts
    ]
    backbone = [spec.backbone.model_dump(exclude={"weights"}), *_name(spec.backbone.name)]
    loss = [spec.loss.isolation, spec.loss.branch_blocks, spec.loss.weighting]
    return [spec.variant, backbone, loss, heads, size]
