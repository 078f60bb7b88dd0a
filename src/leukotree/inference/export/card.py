"""The model card of an export: README.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leukotree import __version__
from leukotree.errors import InputError
from leukotree.evaluation.decide import RULES
from leukotree.inference.export.agreement import TOLERANCE
from leukotree.inference.loaded import LoadedRun
from leukotree.records import compared, runfolder
from leukotree.report.blocks import Table, plural
from leukotree.report.summary import StudySummary
from leukotree.spec import RunSpec

UNKNOWN = "unknown"
INTENDED = """\
For research on images of single white blood cells in stained smears. It may be studied, and compared with
other models. It is no medical device. No diagnosis and no treatment may depend on its answers."""
LIMITS = (
    "It knows only the leaves below. Each image gets one of them, also an image of something else.",
    "Its scores are those of one data set. At another hospital, scanner or stain they can be much worse.",
    "It sees one image of one cell. A diagnosis needs a patient's history, cytometry and genetics.",
    "Its probabilities may not be calibrated: see the table of calibration, where there is one.",
)


@dataclass(frozen=True)
class Facts:
    """What a card says beside the run itself."""

    study: str
    tables: Sequence[Table]
    """The scores, as `report.scorecard.tables`."""
    scored: str
    """A sentence: which runs the scores are of."""
    warnings: Sequence[str]
    summary: StudySummary
    agreement: Mapping[str, float]
    """File -> the largest difference from the run, as `agreement.check`."""
    checked: str
    """What the files were compared on: "64 images of test fold 0"."""
    rounding: float | None = None
    """The largest difference of a leaf's probability between the run in bf16 and the export in fp32; None for
    a run in fp32."""


def weights(run: LoadedRun) -> dict[str, str]:
    """The pretrained weights of a run, their licence, and what to cite; "unknown" where that is not known."""
    given = run.spec.backbone.weights
    if given is None:
        return {"weights": "none; training began from random weights", "licence": "-", "citation": "-"}
    environment = runfolder.read_environment(run.folder)
    digest = environment.get(compared.WEIGHTS, UNKNOWN)
    if noted := environment.get(runfolder.BACKBONE):
        return {
            "weights": f"{noted.get('weights')}, sha256 {digest}",
            "licence": noted.get("licence") or UNKNOWN,
            "citation": ", ".join(noted.get("citation") or ()) or UNKNOWN,
        }
    if given != "hub":
        name = f"the file {Path(given).name}, sha256 {digest}"
        return {"weights": name, "licence": UNKNOWN, "citation": UNKNOWN}
    import timm

    config = timm.get_pretrained_cfg(run.spec.backbone.name)
    tag = f".{config.tag}" if config and config.tag else ""
    papers = config.paper_ids if config else None
    cited = [papers] if isinstance(papers, str) else list(papers or ())
    cited += [config.origin_url] if config and config.origin_url else []
    cited += [f"the model card of {config.hf_hub_id}"] if config and config.hf_hub_id else []
    return {
        "weights": f"timm's {run.spec.backbone.name.partition('.')[0]}{tag}",
        "licence": (config.license if config else None) or UNKNOWN,
        "citation": ", ".join(cited) or UNKNOWN,
    }


def text(run: LoadedRun, facts: Facts, digests: Mapping[str, str]) -> str:
    """The Markdown of the card. `digests`: file -> sha256 of what is in the folder beside it."""
    spec = run.spec
    parts = [
        f"# {facts.study}: {spec.variant}, {spec.backbone.name}",
        f"A classifier of single white blood cells, exported from the run `{run.folder.name}` of the study "
        f"`{facts.study}` by LeukoTree {__version__}.",
        "## Intended use",
        INTENDED,
        "## Use",
        _use(run),
        "## Data and split",
        _data(run, facts),
        "## Scores",
        facts.scored,
        _rule(facts.summary.decision),
        *(f"**Warning.** {warning}" for warning in facts.warnings),
        *map(_markdown, facts.tables),
        "## Limits",
        "\n".join(f"* {limit}" for limit in LIMITS),
        "## Tree",
        f"```text\n{_tree(run)}\n```",
        "## Weights and licences",
        _weights(run),
        "## Files",
        _agreement(facts),
        _table(["file", "sha256"], [[name, f"`{digest}`"] for name, digest in digests.items()]),
    ]
    return "\n\n".join(parts) + "\n"


def _rule(rule: str) -> str:
    """How the scored leaves were decided, beside how the scripts decide."""
    greedy = RULES["greedy"].words
    if rule == "greedy":
        return f"The leaves are decided {greedy} log p(child given parent), here and by `run.py`."
    return (
        f"The scored leaves are decided {RULES[rule].words} log p(child given parent). `run.py` decides "
        f"{greedy} it, so its leaves can differ from these."
    )


def _use(run: LoadedRun) -> str:
    size = run.prepared.size
    return f"""\
`python run.py IMAGE` needs onnxruntime, numpy and pillow. `python run_torch.py IMAGE` needs torch in the
place of onnxruntime. Neither needs LeukoTree.

* Input of `model.onnx` and `model.pt2`: `images`, uint8, (batch, 3, {size}, {size}), RGB, for any batch. The
  normalisation is a part of the model.
* Outputs: `log_p_edges`, log p(child | parent) for each edge, and `p_leaves`, the probability of each leaf.
  `model.json` has their order.
* Training images were resized to {size} x {size} pixels (bicubic, with antialiasing, the aspect ratio is not
  kept) and stored as JPEG of quality {run.prepared.quality} without chroma subsampling.
* The scripts take images of this size as they are, and resize others with Pillow. Its pixels differ a little
  from those of leukotree's own `pack`.
* `timm/`: the backbones, as `timm.create_model('local-dir:timm/...', pretrained=True)` loads them. They give
  features of normalised images. `heads.safetensors` beside them has the linear heads, and `model.json` says
  which head is which."""


def _data(run: LoadedRun, facts: Facts) -> str:
    spec, summary = run.spec, facts.summary
    dataset = summary.dataset or {}
    environment = runfolder.read_environment(run.folder)
    lines = [
        f"data: `{Path(spec.data.shards).name}`, fingerprint `{environment.get(compared.DATA, UNKNOWN)}`",
        f"outer fold that this model never saw: {_unseen(run)}",
        f"seed {spec.seed}, {_training(spec)}",
    ]
    if dataset:
        counts = ", ".join(f"{leaf} {n}" for leaf, n in dict(dataset.get("counts", {})).items())
        lines += [
            f"images of the data set: {counts}",
            f"patients: {dataset.get('patients') or UNKNOWN}, in {dataset.get('folds')} folds; what a fold "
            f"keeps together: {dataset.get('group')}",
        ]
    else:
        lines.append("images and patients of the data set: not here when this card was written")
    lines.append(f"code: {', '.join(runfolder.code_of(run.folder)) or UNKNOWN}")
    return "\n".join(f"* {line}" for line in lines)


def _training(spec: RunSpec) -> str:
    if spec.variant == "logistic":  # neighbours are not exported
        return f"a logistic regression on features of a frozen backbone, C {spec.plain.c:g}"
    return f"{spec.optim.epochs} epochs, batch {spec.optim.batch_size}, loss {spec.loss.kind}"


def _unseen(run: LoadedRun) -> str:
    data = run.spec.data
    if data.all_folds:
        return "none. It was trained on all folds, and never scored"
    return f"{data.test_fold}" + (f" of repeat {data.repeat}" if data.repeat else "")


def _weights(run: LoadedRun) -> str:
    known = weights(run)
    rows = [
        f"pretrained weights: {known['weights']}",
        f"their licence: {known['licence']}",
        f"to cite for them: {known['citation']}",
        "licence of this model: unknown; it follows from the licences of the data and of the weights",
    ]
    return "\n".join(f"* {row}" for row in rows)


def _agreement(facts: Facts) -> str:
    lines = [
        f"Compared with the run in fp32 on {facts.checked}. The largest difference of a log-probability, of "
        f"a probability, or of a feature (at most {TOLERANCE:g}; relative where the number is above 1):",
        _table(["file", "difference"], [[name, f"{value:.1e}"] for name, value in facts.agreement.items()]),
    ]
    if facts.rounding is not None:
        lines.append(
            "The run computed in bf16, and its scores are those of bf16. On these images its probabilities "
            f"of leaves differ from those of this export by at most {facts.rounding:.1e}."
        )
    lines.append(
        "`SHA256SUMS` has the digests of all files, and `sha256sum -c SHA256SUMS` checks them. Those of "
        "the other files:"
    )
    return "\n\n".join(lines)


def _tree(run: LoadedRun) -> str:
    taxonomy = run.taxonomy

    def below(node: str, depth: int) -> list[str]:
        lines = [f"{'  ' * depth}{node}"]
        for child in taxonomy.children.get(node, ()):
            lines += below(child, depth + 1)
        return lines

    return "\n".join(below(taxonomy.root, 0))


def model_json(run: LoadedRun, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The facts that a program needs: the content of model.json."""
    from leukotree.models.classifier import normalisation

    mean, std = (value.flatten().tolist() for value in normalisation(run.models[0]))
    return {
        "variant": run.spec.variant,
        "input": "uint8 RGB, (batch, 3, size, size)",
        "size": run.prepared.size,
        "mean": mean,
        "std": std,
        "root": run.taxonomy.root,
        "children": {node: list(below) for node, below in run.taxonomy.children.items()},
        "edges": list(run.taxonomy.edges),
        "leaves": list(run.taxonomy.leaves),
        "decision": f"greedy: {RULES['greedy'].words} log p(child | parent)",
        "models": list(rows),
    }


def _markdown(table: Table) -> str:
    return f"{table.caption}\n\n{_table(table.header, table.rows)}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(value: str) -> str:
    return " ".join(str(value).replace("|", "\\|").replace("<", "&lt;").split())


def scored(summary: StudySummary, arm: str, run: LoadedRun, alone: bool) -> str:
    """The sentence about which runs the scores are of."""
    if alone:
        return (
            f"They are those of this run on fold {run.spec.data.test_fold}, which it never saw. They are "
            "computed as in the report of a study."
        )
    of_arm = next((one for one in summary.arms if one.name == arm), None)
    if of_arm is None:
        raise InputError(f"{summary.name}: no arm {arm!r}")
    runs = plural(len(of_arm.runs), "run")
    last = "The exported model is one of them."
    if run.spec.data.all_folds:
        last = "The exported model was trained in the same way on all folds. It was never scored itself."
    return (
        f"They are those of the study's report for `{arm}`: {runs}, each on the outer fold that it never "
        f"saw. {last}"
    )
