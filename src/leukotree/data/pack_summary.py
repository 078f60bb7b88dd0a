"""What a packed folder holds, in lines for people."""

from __future__ import annotations

from dataclasses import dataclass

from leukotree.data import by_source, consensus, deals, pack_folder
from leukotree.data.dataset import Dataset
from leukotree.data.patients.doubts import Doubt


@dataclass(frozen=True)
class PackSummary:
    """The content of the packed folder."""

    dataset: Dataset
    written: bool
    """False if the folder already held this data set."""
    doubts: tuple[Doubt, ...] = ()
    """Doubts about the ids of patients."""
    dealt: tuple[int, ...] = ()
    """The repeats whose deals were written now."""
    test: Dataset | None = None
    """The outer test, in a folder of its own."""

    def lines(self) -> list[str]:
        """Return a few lines for people."""
        data, description = self.dataset, self.dataset.description
        per_fold = data.index.groupby("fold").agg(images=("key", "size"), groups=("group", "nunique"))
        kept = "written" if self.written else "already packed from the same manifest with the same options"
        counts = ", ".join(f"{leaf} {n}" for leaf, n in description.counts.items())
        lines = [
            f"{data.folder}: {kept}",
            f"{len(data)} images of {data.size} x {data.size}, {description.patients} patients: {counts}",
            f"{data.folds} folds of {data.groups}: images {list(per_fold['images'])}, "
            f"{data.group_word}s {list(per_fold['groups'])}; {data.index['shard'].nunique()} shards",
        ]
        if repeats := deals.numbers(data.folder):
            new = f", written now: {', '.join(map(str, self.dealt))}" if self.dealt else ""
            lines.append(f"further deals to folds for the repeats {', '.join(map(str, repeats))}{new}")
        if labels := (description.model_extra or {}).get("labels"):
            lines.append(consensus.line(labels))
        if cells := (description.model_extra or {}).get("boxes"):
            lines.append(
                f"{cells['cells']} images are boxes of {cells['files']} files; {cells['cut']} of them reach "
                "the edge of their file, so may be cut off there"
            )
        if copies := int(data.index["sha256"].duplicated().sum()):
            lines.append(f"{copies} image(s) are exact copies of another of their group, with the same leaf")
        if near := (description.model_extra or {}).get("near_duplicates"):
            lines.append(
                f"{near['images']} image(s) without a patient look like another one: {near['groups']} "
                f"group(s); see them with `leukotree audit {data.folder} --html FILE`"
            )
        if description.dropped:
            listed = pack_folder.list_broken((item.image, item.reason) for item in description.dropped)
            lines.append(f"left out, broken: {listed}")
        return [*lines, *self._of_sources(), *(doubt.line() for doubt in self.doubts)]

    def _of_sources(self) -> list[str]:
        """Lines about folds of sources, matching and the outer test, where there are some."""
        lines, extra = [], self.dataset.description.model_extra or {}
        if self.dataset.pack_option("folds_by"):
            named = ", ".join(f"{fold} {name!r}" for fold, name in enumerate(extra["fold_sources"]))
            lines.append(f"each fold is a source: {named}")
            lines += [f"warning: {line}" for line in by_source.missing_leaves(self.dataset.index)]
        if unmatched := extra.get("unmatched"):
            per_source = (
                f"{source!r} {', '.join(f'{leaf} {n}' for leaf, n in leaves.items())}"
                for source, leaves in unmatched.items()
            )
            lines.append(
                f"left out, so that every source has as many images of a leaf: {'; '.join(per_source)}"
            )
        if self.test is not None:
            counts = ", ".join(f"{leaf} {n}" for leaf, n in self.test.description.counts.items() if n)
            lines.append(
                f"{self.test.folder}: outer test of {len(self.test)} images: {counts}; after training, "
                f"`leukotree evaluate STUDY {self.test.folder}`"
            )
        return lines
