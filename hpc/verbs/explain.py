"""`explain`: maps of what finished runs decide by, and how well they fit the cell."""

from __future__ import annotations

import argparse
import json
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc import options
from hpc.verbs import given
from leukotree.data.remote.address import is_remote, trust
from leukotree.errors import Busy, InputError
from leukotree.progress import say, step

if TYPE_CHECKING:
    from leukotree.explain.run import Explained

METHODS = ("gradcam", "hirescam", "scorecam", "rollout")
"""Those of `leukotree.explain.maps`, which takes seconds to import."""


def define_explain(verbs: options.Verbs) -> None:
    verb = options.verb(
        verbs,
        "explain",
        "make maps of what finished runs decide by (Grad-CAM and others), and measure how well they fit the "
        "cell; does only what is missing",
        "leukotree explain sweeps/phantom.yaml --masks data/phantom-images/manifest.csv",
        run_explain,
    )
    verb.add_argument("what", metavar="STUDY|RUN", help="a study's file or name, or the folder of a run")
    options.overrides(verb)
    verb.add_argument(
        "--images",
        type=options.positive,
        default=200,
        metavar="N",
        help="at most N test images of a run, in a fixed random order (default %(default)s)",
    )
    verb.add_argument(
        "--methods",
        type=_methods,
        default=METHODS,
        metavar="A,B",
        help=f"some of {','.join(METHODS)} (default: all that suit the model; scorecam: 1 image in 8)",
    )
    verb.add_argument(
        "--masks",
        metavar="MANIFEST",
        help="the manifest that the images were packed from, with a column mask (default: no masks; then "
        "only ROAD, stability and random weights are measured)",
    )
    verb.add_argument(
        "--data",
        metavar="SHARDS|MANIFEST",
        help="explain the images of this packed data set, or of this manifest (default: each run's own test "
        "images)",
    )
    verb.add_argument(
        "--road",
        type=options.count,
        default=16,
        metavar="N",
        help="ROAD, which is slow, on the first N images (default %(default)s)",
    )
    verb.add_argument(
        "--panels",
        type=options.count,
        default=6,
        metavar="N",
        help="write pictures of the first N images of each run, and of its N most confident errors and "
        "nearest ties (default %(default)s)",
    )
    verb.add_argument("--json", action="store_true", help="print the answer as JSON")
    verb.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="(default %(default)s)"
    )
    verb.add_argument("--workers", type=options.count, default=1, help="decoding threads (default 1)")
    verb.add_argument("--threads", type=options.positive, help="torch threads on the CPU")
    verb.epilog = (
        f"{verb.epilog}. As a job: sbatch --wrap 'leukotree explain STUDY'; the same command continues it"
    )


def _methods(text: str) -> tuple[str, ...]:
    """Names of methods, each once (for argparse)."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if wrong := [name for name in names if name not in METHODS]:
        raise argparse.ArgumentTypeError(f"no method {wrong[0]!r}; there are {', '.join(METHODS)}")
    return names


def run_explain(arguments: Namespace) -> int:
    step("looking for finished runs")
    runs = _runs(arguments)
    if arguments.masks and not Path(arguments.masks).is_file():
        raise InputError(
            f"{arguments.masks}: no such file; give the manifest that the images were packed from"
        )
    if arguments.data and not (is_remote(arguments.data) or Path(arguments.data).exists()):
        raise InputError(f"{arguments.data}: no such folder or file; give packed shards or a manifest")
    step(f"importing torch and timm, for {len(runs)} runs", accepted=True)
    from leukotree.distributed import engine
    from leukotree.explain.run import NoMethod, Settings, explain
    from leukotree.runtime import Runtime

    settings = Settings(
        images=arguments.images,
        methods=arguments.methods,
        road=arguments.road,
        panels=arguments.panels,
        workers=arguments.workers,
    )
    masks = Path(arguments.masks) if arguments.masks else None
    trust(arguments.data or "")
    other = arguments.data or None
    engine.require_device(arguments.device)
    answers = []
    with engine.start(Runtime(device=arguments.device, threads=arguments.threads)) as rank:
        for run in runs:
            try:
                answer = explain(run, settings, rank, masks, other)
            except (Busy, NoMethod) as error:
                if len(runs) == 1:
                    raise
                say(f"leukotree explain: {error}; skipped")
                continue
            answers.append(_answer(answer))
            if not arguments.json:
                print(_line(answer), flush=True)
    if arguments.json:
        print(json.dumps(answers))
    return 0


def _runs(arguments: Namespace) -> list[Path]:
    """The folders of the finished outer-fold runs that are meant. Raises InputError where there is none."""
    from hpc import advised
    from leukotree.records import runfolder

    folder = Path(arguments.what)
    if (folder / runfolder.SPEC).is_file():
        if arguments.overrides:
            raise InputError(
                f"{' '.join(arguments.overrides)}: changes a study's file, and {folder} is a run"
            )
        return [folder]
    root = folder
    if not folder.is_dir() or (folder.suffix in (".yaml", ".yml")):
        root = given.study_folder(Namespace(study=arguments.what, overrides=arguments.overrides))
    if not root.is_dir():
        raise InputError(
            f"{arguments.what}: no run folder, and no study that has begun ({root} is not there)"
        )
    done = [path.parent for path in sorted(root.glob(f"*/{runfolder.SPEC}")) if _is_done(path.parent)]
    if not done:
        advice = advised.first(arguments.what, arguments.overrides)
        raise InputError(f"{root}: has no finished run of an outer fold; start with `{advice}`")
    return done


def _is_done(run: Path) -> bool:
    from leukotree.records import runfolder

    if runfolder.read_status(run).get("state") != "done" or not (run / runfolder.PREDICTIONS).exists():
        return False
    data = runfolder.read_spec(run).data
    return data.inner is None and not data.all_folds


def _means(explained: Explained) -> dict[str, dict[str, float]]:
    """Method -> the means over its rows of trained weights, of what is known."""
    from leukotree.records import explanations

    trained = explained.frame[explained.frame["weights"] == explanations.TRAINED]
    means = trained.groupby("method", sort=False)[["area", *explanations.MEASURES]].mean()
    return {
        str(method): {str(name): float(value) for name, value in row.dropna().items()}
        for method, row in means.iterrows()
    }


def _answer(explained: Explained) -> dict[str, Any]:
    return {
        "run": str(explained.run),
        "table": str(explained.table),
        "images": explained.images,
        "with_mask": explained.with_mask,
        "parts_computed": explained.computed,
        "methods_left_out": list(explained.left_out),
        "panels": [str(path) for path in explained.pictures],
        "means": _means(explained),
    }


def _line(explained: Explained) -> str:
    """What was measured, for people."""
    from leukotree.records.explanations import CENTRE

    means = _means(explained)
    first = next(method for method in means if method != CENTRE)
    shown = {"energy": "energy in mask", "area": "mask area", "road": "ROAD", "stability": "stability"}
    numbers = ", ".join(
        f"{word} {means[first][key]:.3f}" for key, word in shown.items() if key in means[first]
    )
    done = "" if explained.computed else " (was done)"
    lacking = f"; {', '.join(explained.left_out)} needs another backbone" if explained.left_out else ""
    images = f"{explained.images} images, {explained.with_mask} with a mask{done}"
    return f"{explained.run}: {images}; {first}: {numbers}{lacking}"
