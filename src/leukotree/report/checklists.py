"""checklists.md: the items of reporting guidelines, filled where the study knows the answer, and open where
only the author does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from leukotree.data import described
from leukotree.evaluation import decide
from leukotree.records import runfolder
from leukotree.report import scores
from leukotree.report.blocks import Section, Text, plural
from leukotree.report.checklist_items import GUIDELINES, Guideline, Item
from leukotree.report.summary import StudySummary
from leukotree.spec import PLAIN

FILE = "checklists.md"
State = Literal["answered", "begun", "open"]
STATES: tuple[State, ...] = ("answered", "begun", "open")
HOW = """\
The items of two reporting guidelines, in our own short words; the numbers are theirs. `answered`: this study
knows the answer. `begun`: it knows a part, and the author adds the rest. `open`: only the author knows. Read
an answer before you send it: the study knows its files and settings, not the ward.
"""


def section(summary: StudySummary, sections: Sequence[Section]) -> Section:
    """A sentence that names the file, with the number of items in each state."""
    counts, known, titles = [], facts(summary), _titles(sections)
    for guideline in GUIDELINES:
        states = Counter(state(item, known, titles) for item in guideline.items)
        listed = ", ".join(f"{states[name]} {name}" for name in STATES)
        counts.append(f"{guideline.name}: {plural(len(guideline.items), 'item')}, {listed}")
    return Section("Checklists", [Text(f"The checklists for authors are in `{FILE}`. {'. '.join(counts)}.")])


def render(summary: StudySummary, sections: Sequence[Section], page: str) -> str:
    """The Markdown of the file. page: the name of the report that its links lead to."""
    known, titles = facts(summary), _titles(sections)
    parts = [f"# Checklists of study {summary.name}\n", HOW]
    for guideline in GUIDELINES:
        rows = [_row(item, known, titles, page) for item in guideline.items]
        parts.append(_table(guideline, rows))
    return "\n".join(parts)


def state(item: Item, known: Mapping[str, str], titles: Mapping[str, str]) -> State:
    """Whether the study answers an item. titles: those of the report's sections."""
    answers = any(name in known for name in item.facts) or any(title in titles for title in item.sections)
    if not answers:
        return "open"
    return "begun" if item.author else "answered"


def _row(item: Item, known: Mapping[str, str], titles: Mapping[str, str], page: str) -> list[str]:
    told = [known[name] for name in item.facts if name in known]
    links = [f"[{title}]({page}#{titles[title]})" for title in item.sections if title in titles]
    see = [f"See {', '.join(links)}."] if links else []
    of_item = state(item, known, titles)
    author = "" if of_item == "answered" else item.author or "not known to this study"
    return [item.number, item.asks, of_item, " ".join([*told, *see]), author]


def _table(guideline: Guideline, rows: Sequence[Sequence[str]]) -> str:
    header = ["item", "asks for", "state", "from this study", "the author adds"]
    lines = [header, ["---"] * len(header), *rows]
    table = "\n".join(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in lines)
    return f"\n## {guideline.name}\n\n{guideline.source}.\n\n{table}\n"


def _cell(value: str) -> str:
    return " ".join(value.replace("|", "\\|").replace("<", "&lt;").split())


def _titles(sections: Sequence[Section]) -> dict[str, str]:
    """Title of a section -> its anchor in the page."""
    return {section.title: section.anchor for section in sections if section.title and not section.lead}


def facts(summary: StudySummary) -> dict[str, str]:
    """Name -> a sentence, for those that the study knows."""
    told = {name: fact(summary) for name, fact in FACTS.items()}
    return {name: sentence for name, sentence in told.items() if sentence}


def _comparisons(summary: StudySummary) -> str:
    pairs = ", ".join(f"{challenger} with {reference}" for challenger, reference in summary.primary)
    rope = f"region of practical equivalence ±{100 * summary.rope:g} points of macro F1"
    return f"Compared, as declared before the first result: {pairs}; {rope}." if pairs else ""


def _sources(summary: StudySummary) -> str:
    counts = Counter(source for run in scores.one_per_fold(summary.runs) for source in run.images["source"])
    listed = ", ".join(f"{source or '(no source)'} ({n})" for source, n in sorted(counts.items()))
    return f"Tested images by source: {listed}." if counts else ""


def _values(summary: StudySummary, column: str) -> list[str]:
    """The values of a column of the tested images, without the empty one."""
    values = {
        value
        for run in scores.one_per_fold(summary.runs)
        if column in run.images
        for value in run.images[column]
    }
    return sorted(values - {""})


def _places(column: str) -> Callable[[StudySummary], str]:
    def fact(summary: StudySummary) -> str:
        values = _values(summary, column)
        return f"{column.capitalize()}: {', '.join(values)}." if values else ""

    return fact


def _left_out(summary: StudySummary) -> str:
    if summary.dataset is None:
        return ""
    dropped = len(summary.dataset.get("dropped") or [])
    return f"{plural(dropped, 'broken image')} left out when packing."


def _preprocessing(summary: StudySummary) -> str:
    size = (summary.dataset or {}).get("size")
    resized = f"Each image was resized to {size} x {size} pixels once. " if size else ""
    changes = ", ".join(f"{key} {value}" for key, value in summary.base.augment.model_dump().items())
    return f"{resized}Augmentation in training: {changes}."


def _pseudonyms(summary: StudySummary) -> str:
    if summary.dataset is None:
        return ""
    numbered = (summary.dataset.get("options") or {}).get("pseudonyms")
    names = "Numbers replace the names of patients and images." if numbered else "Patients keep their ids."
    return f"No metadata of image files is in the packed data. {names}"


def _missing(summary: StudySummary) -> str:
    folds = scores.one_per_fold(summary.runs)
    unknown = sum(int((run.images["patient"] == "").sum()) for run in folds)
    return f"{unknown} of {sum(len(run.true) for run in folds)} tested images have no patient id."


def _labels(summary: StudySummary) -> str:
    labels = (summary.dataset or {}).get("labels")
    if not isinstance(labels, dict):
        return ""
    named = ", ".join(labels["readers"])
    return f"The labels are the consensus ({labels['from']}) of the readers {named}, chosen before training."


def _readers(summary: StudySummary) -> str:
    columns = dict.fromkeys(name for run in summary.runs for name in described.readers(run.images))
    names = [column.removeprefix(described.READER) for column in columns if _values(summary, column)]
    return f"Readers of tested images: {', '.join(names)}." if names else ""


def _folds(summary: StudySummary) -> str:
    outer = len(scores.one_per_fold(summary.runs))
    inner = (summary.study.get("folds") or {}).get("inner")
    nested = "each outer fold has its own search" if summary.nested else "one search for all outer folds"
    within = f" {inner} inner folds choose the values; {nested}." if inner and summary.searches else ""
    repeated = f", repeated {summary.repeats} times" if summary.repeats > 1 else ""
    return (
        f"Cross-validation, stratified by leaf: {plural(outer, 'outer fold')} with results{repeated}.{within}"
    )


def _disjoint(summary: StudySummary) -> str:
    group = (summary.dataset or {}).get("group")
    return f"Folds are disjoint by {group}." if group else ""


def _model(summary: StudySummary) -> str:
    variants = ", ".join(dict.fromkeys(run.variant for run in summary.runs))
    return f"Backbone {summary.base.backbone.name}; variants {variants}."


def _software(summary: StudySummary) -> str:
    environment: Mapping[str, Any] = summary.runs[0].environment
    packages = environment.get("packages")
    if not isinstance(packages, Mapping):
        return ""
    listed = ", ".join(f"{name} {version}" for name, version in packages.items())
    return f"Python {environment.get('python', '?')}; {listed}."


def _initial(summary: StudySummary) -> str:
    weights = summary.base.backbone.weights
    seeds = ", ".join(map(str, sorted({run.seed for run in summary.runs})))
    noted = [run.environment.get(runfolder.BACKBONE) or {} for run in summary.runs]
    named = dict.fromkeys(str(one["weights"]) for one in noted if one.get("weights"))
    start = "random" if weights is None else "pretrained (timm)" if weights == "hub" else "pretrained, a file"
    if named:
        start = f"pretrained ({'; '.join(named)})"
    return f"Backbone {start}, heads random; seeds {seeds}."


def _training(summary: StudySummary) -> str:
    optim = summary.base.optim
    budget = f"{optim.epochs} epochs, global batch {optim.batch_size}"
    steps = f"AdamW, {budget}, unless a search or grid set others."
    fitted = [variant for variant in summary.variants if variant in PLAIN]
    if not fitted:
        return steps
    once = f"{' and '.join(fitted)}: fitted at once to stored features of a frozen backbone."
    return once if len(fitted) == len(summary.variants) else f"{steps} {once}"


def _selection(summary: StudySummary) -> str:
    how = "by the mean macro F1 of inner folds" if summary.searches else "by hand, before the runs"
    return f"The weights after the last epoch. Hyperparameters were chosen {how}, never on a test fold."


def _ensembles(summary: StudySummary) -> str:
    used = any(run.variant == "ensemble" for run in summary.runs)
    return "The variant `ensemble` averages several flat models." if used else "None."


def _decision(summary: StudySummary) -> str:
    words = decide.RULES[summary.decision].words
    return f"Decided by the rule `{summary.decision}`: {words} log p(child given parent)."


def _intervals(summary: StudySummary) -> str:
    return "Corrected resampled t-test over folds, Holm over the declared pairs; intervals resample patients."


def _tested(summary: StudySummary) -> str:
    folds = scores.one_per_fold(summary.runs)
    patients = {name for run in folds for name in run.images["patient"]} - {""}
    images = sum(len(run.true) for run in folds)
    return f"{plural(images, 'image')} of {plural(len(patients), 'known patient')} tested."


def _warnings(summary: StudySummary) -> str:
    return "The warnings of the report name limits that the study sees."


def _declared(summary: StudySummary) -> str:
    changed = f" Changed after the first run: {'; '.join(summary.redeclared)}." if summary.redeclared else ""
    return f"The study file `study.yaml` declares comparisons and rules before the first run.{changed}"


def _code(summary: StudySummary) -> str:
    commits = sorted(
        {str(run.environment["commit"]) for run in summary.runs if run.environment.get("commit")}
    )
    return f"Commit {', '.join(commit[:12] for commit in commits)}." if commits else ""


def _leaves(summary: StudySummary) -> str:
    return f"The leaf of an image: {', '.join(summary.runs[0].taxonomy.leaves)}."


def _imbalance(summary: StudySummary) -> str:
    tau = summary.base.loss.tau
    return f"Class weights (inverse frequency)^tau, tau {tau:g}, unless a search or grid set another."


FACTS: dict[str, Callable[[StudySummary], str]] = {
    "comparisons": _comparisons,
    "sources": _sources,
    "sites": _places("site"),
    "scanners": _places("scanner"),
    "left out": _left_out,
    "preprocessing": _preprocessing,
    "pseudonyms": _pseudonyms,
    "missing": _missing,
    "labels": _labels,
    "readers": _readers,
    "folds": _folds,
    "disjoint": _disjoint,
    "model": _model,
    "software": _software,
    "initial": _initial,
    "training": _training,
    "selection": _selection,
    "ensembles": _ensembles,
    "decision rule": _decision,
    "intervals": _intervals,
    "tested": _tested,
    "warnings": _warnings,
    "declared": _declared,
    "code": _code,
    "leaves": _leaves,
    "imbalance": _imbalance,
    "predictors": lambda summary: "The pixels of the image are the only input; nobody assesses them.",
    "updating": lambda summary: "None: no model was updated after its test.",
}
