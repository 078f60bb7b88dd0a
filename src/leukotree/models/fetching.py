"""Pretrained weights from the hub or an address into the cache of this machine, before jobs that have no
internet. Nothing else in LeukoTree fetches weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from leukotree import files
from leukotree.errors import InputError, RunFailed, one_line
from leukotree.models import pretrained
from leukotree.spec import BackboneSpec


def fetch(backbone: BackboneSpec) -> list[Path]:
    """The files that a backbone needs, fetched where they are not here yet. A model card is fetched, too,
    where there is one.

    Raises InputError for what cannot be fetched (a file or package that is not here, a repository that does
    not exist or asks for a login), and where HF_HUB_OFFLINE forbids it; RunFailed where the server does not
    answer, or the cache cannot be written.
    """
    name = pretrained.parse(backbone.name)
    paths: list[Path] = []
    commit = name.revision
    if name.kind == "local-dir":
        paths.append(pretrained.folder(name) / pretrained.CONFIG)
    if name.kind == "hf-hub":
        paths.append(_file(name.place, name.revision, (pretrained.CONFIG,)))
        commit = _commit(paths[0])
    if backbone.weights is None:
        return paths
    origin = None
    if backbone.weights == "hub" and name.kind == "hf-hub":
        origin = pretrained.Origin(name.place, commit, (pretrained.SAFE, pretrained.PICKLED))
    elif backbone.weights == "hub" and name.kind == "timm":
        origin = pretrained.of_timm(name.place)
    if origin is None:
        found = pretrained.file(backbone)
        return [*paths, found] if found else paths
    if not origin.repository:
        return [*paths, _address(str(origin.url))]
    paths.append(_file(origin.repository, origin.revision, origin.names))
    with suppress(InputError, RunFailed):  # some repositories have none
        paths.append(_file(origin.repository, _commit(paths[-1]), (pretrained.CARD,)))
    return paths


def _commit(file: Path) -> str:
    """The commit of a file in the cache. Further files of its repository are fetched from the same one:
    a branch may have moved, and asking for it would move it here too, away from the files that runs used."""
    return file.parent.name


def _file(repository: str, revision: str | None, names: tuple[str, ...]) -> Path:
    """The first of some files that a repository has. A file that is here is not fetched again."""
    for name in names:
        if found := pretrained.of_hub(repository, revision, name):
            return found
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with _told(repository, revision, names[0]):
        for name in names:
            try:
                return Path(
                    hf_hub_download(repository, name, revision=revision, cache_dir=pretrained.cache())
                )
            except LocalEntryNotFoundError:  # an EntryNotFoundError, too: no answer
                raise
            except EntryNotFoundError:
                continue
    raise InputError(f"hf-hub:{repository}: has none of the files {', '.join(names)}")


def _address(url: str) -> Path:
    """The file of an address, fetched. The hash in its name is compared with its bytes."""
    from timm.models._hub import download_cached_file

    place = pretrained.by_address(url)
    with _told(url, None, place.name):
        return Path(download_cached_file(url, check_hash=True, cache_dir=place.parent))


@contextmanager
def _told(repository: str, revision: str | None, name: str) -> Iterator[None]:
    """The context whose errors of the hub become one line."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    place = f"{repository}@{revision}" if revision else repository
    if constants.is_offline_mode():
        raise InputError(
            f"{place}: {name} is not on this machine, and HF_HUB_OFFLINE is set; unset it where there is "
            "internet, and fetch again"
        )
    try:
        yield
    except GatedRepoError as error:
        raise InputError(
            f"{place}: asks for a login; accept its terms on its page, then run `hf auth login`"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise InputError(f"{place}: the hub has no such repository or revision; see backbone.name") from error
    except (HTTPError, OSError, RuntimeError) as error:  # a RuntimeError is of hf_xet
        full = isinstance(error, OSError) and files.is_full(error)
        if full or getattr(error, "filename", None):
            raise RunFailed(
                f"{place}: {name} cannot be written below {pretrained.cache()}: {one_line(error)[:200]}; "
                f"make room there, or set {pretrained.VARIABLE} to a folder that can be written",
                "disk" if full else "error",
            ) from error
        raise RunFailed(
            f"{place}: {name} cannot be fetched: {one_line(error)[:200]}; is there internet here?"
        ) from error
