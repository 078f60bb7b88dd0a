"""The section about pretrained weights: where they are from, their licence, and what to cite for them."""

from __future__ import annotations

from leukotree.records import compared, runfolder
from leukotree.report.blocks import Block, Section, Table, Text, number
from leukotree.report.summary import StudySummary

UNKNOWN = "unknown"
HEADER = ("weights", "model of timm", "sha256", "made for", "images", "mean; std", "licence", "cite")


def section(summary: StudySummary) -> Section | None:
    """A row for each kind of pretrained weights of the runs; None without any. Runs of older versions did not
    note them."""
    rows: dict[tuple[str, ...], None] = {}
    resampled: dict[str, None] = {}
    for run in summary.runs:
        noted = run.environment.get(runfolder.BACKBONE)
        if not isinstance(noted, dict) or noted.get("weights") is None:
            continue
        digest = str(run.environment.get(compared.WEIGHTS) or UNKNOWN)
        own, size = noted.get("own_size"), noted.get("images")
        normalisation = "; ".join(" ".join(map(number, noted.get(key) or ())) for key in ("mean", "std"))
        rows[
            str(noted["weights"]),
            str(noted.get("architecture")),
            digest,
            f"{own} px" if own else UNKNOWN,
            f"{size} px",
            normalisation,
            noted.get("licence") or UNKNOWN,
            ", ".join(noted.get("citation") or ()) or UNKNOWN,
        ] = None
        if noted.get("resampled"):
            resampled[f"{noted['weights']} ({own or UNKNOWN} to {size} px)"] = None
    if not rows:
        return None
    caption = "The pretrained weights that runs began with. The licence of a model follows from theirs, too."
    table = Table(caption, HEADER, [list(row) for row in rows], labels=len(HEADER))
    blocks: list[Block] = [table]
    if resampled:
        blocks.append(Text(f"Position embeddings were resampled: {'; '.join(resampled)}."))
    return Section("Pretrained weights", blocks)
