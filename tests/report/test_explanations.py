"""The section about explanations: its numbers are those of the stored tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from leukotree import stats
from leukotree.errors import InputError
from leukotree.records import explanations
from leukotree.report.blocks import Figure, Table
from leukotree.report.collect import collect
from leukotree.report.sections.explanations import by_image
from leukotree.report.sections.explanations import section as explanations_section
from tests.helpers.study_results import STUDY, TREE, cells, expected_runs, images_of_fold, report

FOUND = {"flat": 0.5, "base": 0.6, "multilabel": 0.2}
"""Share of the maps in the cell; the cell's area is 0.2."""
PNG = b"\x89PNG made up"


def table(row: dict[str, object], images: pd.DataFrame, masked: bool, source: str) -> pd.DataFrame:
    """Made-up explanations of the first 15 images of a run."""
    images = images.iloc[:15]
    rng = np.random.default_rng([int(str(row["test_fold"])), int(str(row["seed"]))])
    kinds = [("gradcam", "trained"), ("gradcam", "random"), ("centre", "trained")]
    parts = []
    for method, weights in kinds:
        for decision in ("root", "leukemia", explanations.PATH):
            energy = {"trained": FOUND[str(row["variant"])], "random": 0.2}[weights] + rng.normal(0, 0.05, 15)
            part = images[["key", "leaf"]].assign(
                run=row["run_name"], patient="lab/" + images["patient"], source=source, decided="AML",
                decision=decision, node="AML", method=method, weights=weights, probability=0.5, area=0.2,
                empty=0.0, energy=energy if method != "centre" else 0.3, pointing=rng.integers(0, 2, 15),
                iou=rng.random(15), road=rng.random(15) if decision == explanations.PATH else np.nan,
                stability=rng.random(15), similarity=rng.random(15) if weights == "random" else np.nan,
            )  # fmt: skip
            if decision == "leukemia":  # only some images come here
                part = part.iloc[5:]
            parts.append(part)
    frame = pd.concat(parts, ignore_index=True)
    if not masked:
        frame[["area", "energy", "pointing", "iou"]] = np.nan
    return frame


def explain(root: Path, masked: bool = True, source: str = "lab", name: str = "") -> list[pd.DataFrame]:
    frames = []
    for row in expected_runs():
        frame = table(row, images_of_fold(row["test_fold"]), masked, source)
        explanations.write(explanations.table(root / row["run_name"], name), [frame])
        frames.append(frame)
    return frames


def read(root: Path):  # type: ignore[no-untyped-def]
    return explanations_section(collect(root, STUDY, expected_runs()))


def tables(section) -> list[Table]:  # type: ignore[no-untyped-def]
    return [block for block in section.blocks if isinstance(block, Table)]


def test_a_study_without_explanations_has_no_section(whole: Path) -> None:
    assert read(whole) is None


def test_the_fit_is_the_mean_over_images_beside_its_baselines(copy: Path) -> None:
    frames = explain(copy)
    found = read(copy)
    whole = pd.concat(frame for frame in frames if frame["run"].str.startswith("base-").all())
    rows = whole[(whole["method"] == "gradcam") & (whole["weights"] == "trained")]
    decisions = rows[rows["decision"] != explanations.PATH]
    # The mean over decisions and seeds of an image first, then over images.
    of_image = decisions.groupby("key").agg({"energy": "mean", "patient": "first", "leaf": "first"})
    leaves = of_image["leaf"].map(sorted(set(whole["leaf"])).index).to_numpy()
    (mean,) = stats.means(
        of_image["patient"].tolist(), leaves, of_image[["energy"]].to_numpy(), len(TREE.leaves)
    )
    assert mean.interval is not None
    low, high = (100 * bound for bound in mean.interval)
    row = cells(found, "test folds", "base", "Grad-CAM", "trained")
    assert row[4:] == [
        "45",
        str(of_image["patient"].nunique()),
        f"{100 * mean.value:.1f} ({low:.1f} to {high:.1f})",
        "20.0",
        f"{100 * mean.value - 20:+.1f} ({low - 20:+.1f} to {high - 20:+.1f})",
        f"{100 * mean.value - 30:+.1f} ({low - 30:+.1f} to {high - 30:+.1f})",
    ]
    control = cells(found, "test folds", "base", "Grad-CAM", "random")
    assert abs(float(control[8].split()[0])) < 2  # in points: what was made up
    assert not [row for part in tables(found) for row in part.rows if "centre Gaussian" in row[:4]]


def test_road_is_of_the_path_and_the_other_measures_are_of_decisions(copy: Path) -> None:
    frames = explain(copy)
    frame = frames[0]
    images = by_image(frame, ("gradcam", "trained"))
    rows = frame[(frame["method"] == "gradcam") & (frame["weights"] == "trained")]
    path = rows[rows["decision"] == explanations.PATH].set_index("key")
    centre = frame[(frame["method"] == "centre") & (frame["decision"] == explanations.PATH)].set_index("key")
    pd.testing.assert_series_equal(images["road"], path["road"].sort_index(), check_names=False)
    difference = (path["road"] - centre["road"]).sort_index()
    pd.testing.assert_series_equal(images["road - centre"], difference, check_names=False)
    other = rows[rows["decision"] != explanations.PATH].groupby("key")["pointing"].mean()
    pd.testing.assert_series_equal(images["pointing"], other, check_names=False)


def test_decisions_and_sources_have_rows_of_their_own(copy: Path) -> None:
    explain(copy)
    found = read(copy)
    of_decisions, of_sources = tables(found)[3], tables(found)[4]
    assert [row[2] for row in of_decisions.rows][:3] == ["root", "leukemia", "the whole path"]
    assert [row[3] for row in of_decisions.rows][:3] == ["45", "30", "45"]
    source = next(row for row in of_sources.rows if row[1] == "base")
    fit = cells(found, "test folds", "base", "Grad-CAM", "trained")
    assert source[2] == "lab"
    assert float(source[4].split()[0]) == pytest.approx(100 - float(fit[6].split()[0]), abs=0.11)
    assert source[5] == "80.0"
    assert float(source[6].split()[0]) == pytest.approx(-float(fit[8].split()[0]), abs=0.01)


def test_without_masks_there_are_faithfulness_and_stability_only(copy: Path) -> None:
    explain(copy, masked=False)
    (only,) = tables(read(copy))
    assert "similarity to trained" in only.header
    assert all(row[5] != "0" for row in only.rows if row[3] == "trained")


@pytest.mark.slow("writes and reads many runs")
def test_another_data_set_stands_by_itself(copy: Path) -> None:
    explain(copy)
    explain(copy, source="krd", name="krd-384")
    names = [row[0] for row in tables(read(copy))[0].rows]
    assert names == ["test folds"] * 6 + ["krd-384"] * 6


@pytest.mark.slow("renders two reports")
@pytest.mark.parametrize(("source", "shown"), [("phantom", True), ("lab", False)])
def test_only_pictures_of_phantoms_are_in_a_report(
    source: str, shown: bool, copy: Path, tmp_path: Path
) -> None:
    for row, frame in zip(expected_runs(), explain(copy, source=source), strict=True):
        folder = explanations.panels(copy / row["run_name"]) / "0123"
        folder.mkdir(parents=True)
        (folder / f"gradcam-{frame['key'].iloc[-1]}.png").write_bytes(PNG)
    figures = [block for block in read(copy).blocks if isinstance(block, Figure)]
    assert [figure.png for figure in figures] == [PNG] * 3 * shown
    markdown, html = report(copy, tmp_path / "out")
    assert ("explanations/panels" in markdown) != shown
    assert "## Explanations" in markdown
    assert "Explanations" in html


def test_a_picture_that_no_table_names_is_not_shown(copy: Path) -> None:
    """As of images of patients, whose table was not written before a kill."""
    explain(copy, source="phantom")
    for row in expected_runs():
        folder = explanations.panels(copy / row["run_name"]) / "0123"
        folder.mkdir(parents=True)
        (folder / "gradcam-krd-0000001-a.png").write_bytes(PNG)
    assert not [block for block in read(copy).blocks if isinstance(block, Figure)]


def test_a_damaged_table_is_named(copy: Path) -> None:
    explain(copy)
    path = copy / expected_runs()[3]["run_name"] / "explanations.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(InputError, match=f"{path}: is no table of explanations"):
        read(copy)
