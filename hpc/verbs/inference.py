"""The use of finished runs: `predict` and `evaluate`."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpc import options
from leukotree import files
from leukotree.errors import InputError
from leukotree.progress import step

if TYPE_CHECKING:
    from leukotree.inference.answers import Answers
    from leukotree.inference.members import Members
    from leukotree.report.summary import StudySummary

STUDY_FILES = (".yaml", ".yml")


def define_predict(verbs: options.Verbs) -> None:
    verb = options.verb(
        verbs,
        "predict",
        "predict images with a run, or with the runs of one variant of a study: the mean of their leaf "
        "probabilities. An image or patient of the study gets only runs that did not train on it",
        "leukotree predict sweeps/deepapl.yaml new-images/ --variant flat --out new.csv",
        run_predict,
    )
    verb.add_argument(
        "model", metavar="STUDY|RUN", help="a study's YAML file, or the folder of a run in results/runs"
    )
    verb.add_argument(
        "images",
        metavar="IMAGES",
        nargs="+",
        help="image files and folders; or a manifest with a column 'image'; or a folder of shards; or https "
        "addresses of images or of a manifest. Also key=value changes of the study",
    )
    verb.set_defaults(overrides=[])
    verb.add_argument("--variant", metavar="NAME", help="of a study with several: the variant, or arm")
    verb.add_argument(
        "--out",
        metavar="FILE",
        help=".csv, .json or .parquet; it is replaced (default: predictions-MODEL.csv here)",
    )
    verb.add_argument(
        "--abstain",
        type=options.share,
        metavar="P",
        help="also say the node at which a descent stops that enters only nodes with a probability of at "
        "least P",
    )
    verb.add_argument(
        "--overlay",
        metavar="FOLDER",
        help="also write a picture of each image with its Grad-CAM maps, by the first run that predicted it",
    )
    verb.add_argument("--fold", type=options.count, metavar="K", help="of shards: only this fold")
    verb.add_argument(
        "--drop-broken", action="store_true", help="leave broken images out; without it they are refused"
    )
    verb.add_argument(
        "--trained",
        action="store_true",
        help="also predict images that every run trained on, and mark them; without it they are refused",
    )
    options.computing(verb)


def run_predict(arguments: Namespace) -> int:
    from hpc.tables import align

    words, overrides = _split(arguments.images, arguments.overrides)
    if not words:
        raise InputError("no images; name files, a folder, a manifest, shards or an address")
    step("importing torch and timm")
    from leukotree.inference import output

    members = _members(Path(arguments.model), overrides, arguments.variant)
    out = Path(arguments.out) if arguments.out else Path(f"predictions-{_file_name(members.name)}.csv")
    output.check(out, words)
    if arguments.overlay:
        files.require_writable(Path(arguments.overlay))
    answers = _answers(members, words, arguments)
    written = output.write(answers, out)
    rows = output.lines(answers)
    print(*align(rows), sep="\n")
    if (more := len(answers.images if answers.patients is None else answers.patients) - len(rows) + 1) > 0:
        print(f"... and {more} more")
    print(output.counts(answers))
    print(
        *(f"note: {note}" for note in answers.about["notes"]),
        sep="\n",
        end="\n" * bool(answers.about["notes"]),
    )
    print(*written, *([f"{arguments.overlay}/"] if arguments.overlay else []), sep="\n")
    return 0


def define_evaluate(verbs: options.Verbs) -> None:
    verb = options.verb(
        verbs,
        "evaluate",
        "predict another data set with each finished run of a study, for the section of its report that says "
        "what is lost outside; the same command continues it",
        "leukotree evaluate sweeps/deepapl.yaml data/pbc.csv --name pbc",
        run_evaluate,
    )
    verb.add_argument("study", metavar="STUDY", help="a study's YAML file")
    verb.add_argument(
        "data",
        metavar="SHARDS|MANIFEST",
        help="a folder of shards of the same size, or a manifest, whose images are prepared as `pack` does; "
        "its leaves are leaves of the study",
    )
    options.overrides(verb)
    verb.add_argument("--variant", metavar="NAME", help="only this variant, or arm (default: all)")
    verb.add_argument(
        "--name",
        metavar="NAME",
        help="name of the data set in the report (default: that of the folder or file)",
    )
    verb.add_argument(
        "--drop-broken", action="store_true", help="leave broken images out; without it they are refused"
    )
    options.computing(verb)


def run_evaluate(arguments: Namespace) -> int:
    step("importing torch and timm")
    from leukotree.distributed.engine import start
    from leukotree.inference import evaluate, images, inputs, members
    from leukotree.inference.images import Images
    from leukotree.records import external
    from leukotree.runtime import Runtime

    summary = summary_of(arguments.study, arguments.overrides)
    arms = [members.arm_of(summary, arguments.variant)] if arguments.variant else summary.arms
    of_arms = [members.of_arm(summary, arm) for arm in arms if arm.runs]
    if not of_arms:
        raise InputError(f"study {summary.name}: no finished run; train its folds first")
    runs = [run for of_arm in of_arms for run in of_arm.runs]
    together = members.Members(summary.name, tuple(runs), summary.decision, of_arms[0].taxonomy)
    name = arguments.name or _file_name(Path(arguments.data).stem)
    place = external.folder(runs[0].folder.parent, name)
    files.require_writable(place)
    workers = len(os.sched_getaffinity(0)) if arguments.workers is None else arguments.workers

    def evaluated(of: Images) -> evaluate.Evaluated:
        spelled = evaluate.with_leaves(of, together.taxonomy, arguments.data)
        with start(Runtime(device=arguments.device, threads=arguments.threads)) as engine:
            return evaluate.evaluate(runs, spelled, place, arguments.data, engine, workers=workers)

    if shards := inputs.packed([arguments.data]):
        result = evaluated(images.of_shards(shards, together.prepared))
    else:
        with (
            inputs.opened([arguments.data], leaf=True) as table,
            images.of_files(table, together.prepared, workers, arguments.drop_broken) as of,
        ):
            result = evaluated(of)
    print(
        f"{place}: {result.about.images} images; {result.predicted} runs predicted, {result.done} were done"
    )
    for reason, count in result.about.left_out.items():
        print(f"left out: {count} {reason}")
    for note in result.about.notes:
        print(f"note: {note}")
    print(f"the report has a section about {name} now: run it again")
    return 0


def _answers(members: Members, words: Sequence[str], arguments: Namespace) -> Answers:
    from leukotree.distributed.engine import start
    from leukotree.inference import images, inputs, known, predict
    from leukotree.inference.answers import answers
    from leukotree.inference.images import Images
    from leukotree.runtime import Runtime

    workers = len(os.sched_getaffinity(0)) if arguments.workers is None else arguments.workers
    prepared = members.prepared

    def predicted(of: Images) -> Answers:
        about = known.compare(of, members.runs)
        with start(Runtime(device=arguments.device, threads=arguments.threads)) as engine:
            result = predict.predict(
                members, of, about, engine, workers=workers, also_trained=arguments.trained
            )
            if arguments.overlay:
                from leukotree.explain import overlays

                place = Path(arguments.overlay)
                overlays.write(place, members.runs, of, about.usable, engine, workers=workers)
        return answers(of, result, members, arguments.abstain, about.notes)

    shards = inputs.packed(words)
    if shards is not None:
        return predicted(images.of_shards(shards, prepared, arguments.fold))
    if arguments.fold is not None:
        raise InputError(f"--fold {arguments.fold}: only shards have folds, and {words[0]} is no such folder")
    with (
        inputs.opened(words) as table,
        images.of_files(table, prepared, workers, arguments.drop_broken) as of,
    ):
        for name, reason in of.broken:
            print(f"left out, broken: {name} ({reason})")
        return predicted(of)


def _split(words: Sequence[str], overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """(images, changes of the study): a word such as optim.lr=1 is a change, unless there is such a file."""
    changes = [
        word
        for word in words
        if "=" in word
        and "://" not in word
        and word.partition("=")[0].replace(".", "").replace("_", "").isalnum()
        and not Path(word).exists()
    ]
    return [word for word in words if word not in changes], [*changes, *overrides]


def _members(model: Path, overrides: Sequence[str], variant: str | None) -> Members:
    """The runs of a study, or one run."""
    from leukotree.inference import members

    if model.suffix in STUDY_FILES and not model.is_dir():
        summary = summary_of(str(model), overrides)
        return members.of_arm(summary, members.arm_of(summary, variant))
    for what, given in (("--variant", variant), (" ".join(overrides), overrides)):
        if given:
            raise InputError(f"{what}: changes a study's file, and {model} is a run; leave it out")
    return members.of_run(model)


def summary_of(file: str, overrides: Sequence[str]) -> StudySummary:
    """The finished runs of a study, checked as for its report."""
    from hpc import collected
    from hpc.studies import study

    plan = study.load(file, overrides)
    step("reading the runs")
    return collected.summary(plan)


def _file_name(name: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in name).split())
