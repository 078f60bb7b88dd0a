"""Where a backbone and its pretrained weights are: what `backbone.name` and `backbone.weights` name, as files
of this machine. Nothing is fetched here, and torch is not imported.

| name | where it is |
| --- | --- |
| `vit_small_patch16_384` | a model of timm; with weights `hub` in a repository that timm names |
| `hf-hub:OWNER/MODEL@REVISION` | a repository of the hub, in its cache; without a revision `main` |
| `local-dir:FOLDER` | a folder with `config.json` and `model.safetensors` |

The cache is the folder `LEUKOTREE_WEIGHTS`, else that of huggingface_hub (`HF_HUB_CACHE`, `HF_HOME`).
"""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from leukotree import files
from leukotree.errors import InputError, one_line
from leukotree.models import packaged
from leukotree.spec import BackboneSpec

CONFIG = "config.json"
"""The file in a repository or folder that says which model of timm it is, its size and its normalisation."""
SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"
CARD = "README.md"
"""The model card of a repository."""
VARIABLE = "LEUKOTREE_WEIGHTS"
"""The variable with the folder of fetched weights."""
MOST_BYTES = 2**20
"""Largest config.json that is read."""
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REVISION = re.compile(r"\w[\w./-]*", re.ASCII)


class Missing(InputError):
    """Weights that are not on this machine. The message has the command that fetches them."""


@dataclass(frozen=True)
class Name:
    """A `backbone.name`, read. `revision`: of a repository of the hub; None is `main`."""

    kind: Literal["timm", "hf-hub", "local-dir"]
    place: str
    revision: str | None = None


@dataclass(frozen=True)
class Origin:
    """Where timm has the weights of a model: the files of a repository of the hub, the best one first, or
    else an address."""

    repository: str | None
    revision: str | None
    names: tuple[str, ...]
    url: str | None = None


def parse(name: str) -> Name:
    """What a `backbone.name` names. Raises InputError for a name that can be none."""
    kind, colon, place = name.partition(":")
    if not colon and "/" not in name:
        return Name("timm", name)
    if kind == "local-dir" and place:
        return Name("local-dir", place)
    repository, at, revision = place.partition("@")
    if kind == "hf-hub" and _is_repository(repository) and (not at or _is_revision(revision)):
        return Name("hf-hub", repository, revision or None)
    raise InputError(
        f"backbone.name: {name!r} names no model; give a name of timm, hf-hub:OWNER/MODEL, "
        "hf-hub:OWNER/MODEL@REVISION, or local-dir:FOLDER"
    )


def _is_repository(name: str) -> bool:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return _REPOSITORY.fullmatch(name) is not None


def _is_revision(name: str) -> bool:
    return ".." not in name and _REVISION.fullmatch(name) is not None


def cache() -> Path:
    """The folder with the fetched repositories of the hub, as huggingface_hub lays them."""
    from huggingface_hub import constants

    return _named() or Path(constants.HF_HUB_CACHE)


def _named() -> Path | None:
    """The folder that VARIABLE names; None without it."""
    named = os.environ.get(VARIABLE)
    return Path(os.path.expanduser(named)) if named else None


def of_hub(repository: str, revision: str | None, name: str) -> Path | None:
    """A file of a repository in the cache; None where it is not there. Raises InputError for a link that
    leads out of the cache."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, name, cache(), revision)
    if not isinstance(found, str):
        return None
    # A repository's files are links to its blobs, or to those that repositories share.
    return _inside(Path(found), cache(), cache() / f"models--{repository.replace('/', '--')}")


def folder(name: Name) -> Path:
    """The folder with the `config.json` of a repository in the cache, or of a folder. Raises InputError for a
    folder without one, Missing for a repository that was not fetched."""
    if name.kind == "hf-hub":
        config = of_hub(name.place, name.revision, CONFIG)
        if config is None:
            raise missing(f"hf-hub:{name.place}{f'@{name.revision}' if name.revision else ''}", CONFIG)
        return config.parent
    place = Path(name.place)
    if not os.path.isfile(place / CONFIG):  # False where it cannot be looked at; `Path` raises
        raise InputError(
            f"backbone.name: {name.place} has no {CONFIG}; name a folder with {CONFIG} and {SAFE}, as timm "
            "writes them"
        )
    _inside(place / CONFIG, place)
    return place


def config(name: Name) -> dict[str, Any]:
    """The content of the `config.json` of a repository or folder: `architecture`, the model of timm, and what
    else timm reads. Raises InputError for a file that is none, or of a model that does not turn RGB images
    into a vector of features each."""
    path = folder(name) / CONFIG
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {one_line(error)[:200]}") from error
    if not isinstance(content, dict) or not isinstance(content.get("architecture"), str):
        raise InputError(f"{path}: has no `architecture`, the name of a model of timm")
    inner, arguments = content.get("pretrained_cfg", content), content.get("model_args", {})
    if not isinstance(inner, dict) or not isinstance(arguments, dict):
        raise InputError(f"{path}: pretrained_cfg and model_args must be mappings")
    _check_images(path, inner)
    channels = arguments.get("in_chans", inner.get("input_size", (3,))[0])
    if channels != 3:
        raise InputError(f"{path}: the model takes images of {channels} channels, not RGB")
    if arguments.get("features_only") or arguments.get("global_pool", "avg") in ("", None):
        raise InputError(f"{path}: the model pools no features; set global_pool in model_args")
    return content


def _check_images(path: Path, of_weights: Mapping[str, Any]) -> None:
    """Raises InputError for a size or normalisation that images cannot have: timm would take it, and the
    features would mean nothing."""
    size = of_weights.get("input_size", (3, 1, 1))
    if not _are_three(size) or not all(isinstance(number, int) and number > 0 for number in size):
        raise InputError(f"{path}: input_size must be three numbers, [channels, height, width]")
    mean, std = of_weights.get("mean", (0.5,) * 3), of_weights.get("std", (0.5,) * 3)
    if not _are_three(mean) or not all(0 <= number <= 1 for number in mean):
        raise InputError(f"{path}: mean must be three numbers from 0 to 1, of images in [0, 1]")
    if not _are_three(std) or not all(0 < number <= 1 for number in std):
        raise InputError(f"{path}: std must be three numbers above 0 up to 1, of images in [0, 1]")


def _are_three(values: object) -> bool:
    return (
        isinstance(values, list | tuple)
        and len(values) == 3
        and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    )


def digest(name: str) -> str | None:
    """sha256 of the `config.json` that decides a backbone's shapes; None for a name of timm."""
    parsed = parse(name)
    return None if parsed.kind == "timm" else files.sha256(folder(parsed) / CONFIG)


def file(backbone: BackboneSpec, origin: Origin | None = None) -> Path | None:
    """The file with the weights of a backbone; None for random ones.

    Args: origin: of a model of timm; None asks timm.

    Raises Missing for weights that can be fetched, InputError for others that are not here.
    """
    given, name = backbone.weights, parse(backbone.name)
    if given is None:
        return None
    if given != "hub":
        return path(given)
    if name.kind == "timm":
        origin = origin or of_timm(name.place)
        if (found := fetched(origin)) is None:
            raise missing(backbone.name, origin.names[0] if origin.repository else str(origin.url))
        return found
    place = folder(name)
    if name.kind == "local-dir":
        if not os.path.isfile(place / SAFE):
            raise InputError(f"backbone.name: {name.place} has no {SAFE}; write the weights there as that")
        return _inside(place / SAFE, place)
    for each in (SAFE, PICKLED):
        if found := of_hub(name.place, name.revision, each):
            return found
    raise missing(backbone.name, SAFE)


def path(given: str) -> Path:
    """The file that `backbone.weights` names: a path, or `package:NAME`. Raises InputError where it is not
    here."""
    if given.startswith(packaged.PREFIX):
        return packaged.file(given.removeprefix(packaged.PREFIX))
    if not os.path.isfile(given):
        raise InputError(
            f"backbone.weights: no file {given!r}; use null, hub, the path of a weights file, or package:NAME"
        )
    return Path(given)


def is_path(given: str | None) -> bool:
    """Whether a `backbone.weights` is the path of a file."""
    return given not in (None, "hub") and not str(given).startswith(packaged.PREFIX)


def missing(name: str, what: str) -> Missing:
    """The error for weights that are not here."""
    return Missing(
        f"backbone {name}: {what} is not on this machine, in {cache()}; fetch it where there is internet: "
        f"`leukotree weights fetch {shlex.quote(name)}`"
    )


@functools.lru_cache(maxsize=256)
def of_timm(name: str) -> Origin:
    """Where timm has the weights of a model. Raises InputError for a model without any."""
    import timm
    from timm.models._hub import hf_split

    config = timm.get_pretrained_cfg(name) if timm.models.is_model_pretrained(name) else None
    if config is None:
        raise InputError(f"backbone.weights: timm knows no pretrained weights {name!r}; use null or a file")
    url = config.url if isinstance(config.url, str | None) else config.url[0]
    if not config.hf_hub_id:
        return Origin(None, None, (), url)
    repository, revision = hf_split(config.hf_hub_id)
    own = (config.hf_hub_filename,) if config.hf_hub_filename else ()
    return Origin(repository, revision, (*own, SAFE, PICKLED), url or None)


def fetched(origin: Origin) -> Path | None:
    """The file of an origin on this machine; None where it is not here."""
    if origin.repository:
        for name in origin.names:
            if found := of_hub(origin.repository, origin.revision, name):
                return found
        return None
    here = by_address(str(origin.url))
    return here if os.path.isfile(here) else None


def by_address(url: str) -> Path:
    """Where the file of an address is kept, or will be."""
    name = url.rpartition("/")[2]
    if own := _named():
        return own / name
    from timm.models._hub import get_cache_dir

    return Path(get_cache_dir()) / name


def sha256(file: Path) -> str:
    """sha256 of a file of weights. Raises InputError where the cache of the hub names its bytes by another
    one: they were damaged, which a reader of tensors does not see."""
    digest = files.sha256(file)
    named = Path(os.readlink(file)).name if file.is_symlink() else ""
    if _SHA256.fullmatch(named) and named != digest:
        raise InputError(
            f"{file}: damaged, its bytes are not those that the hub sent; remove {file.resolve()}, and fetch "
            "it again"
        )
    return digest


def _inside(path: Path, *folders: Path) -> Path:
    """The path itself. Raises InputError for a link out of the folders."""
    real = path.resolve()
    if not any(real.is_relative_to(folder.resolve()) for folder in folders):
        raise InputError(f"{path}: is a link out of {folders[0]}; put the file itself there")
    return path
