"""Studies of recorded curves -> results/curves/curves.parquet, a row for each trial, inner fold and epoch.

    python tests/bench/curves.py results/runs/curves-deepapl results/runs/curves-lyon

The studies are results/curves/*.yaml. Trials that have not ended are left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from pairs import ROOT

from leukotree import files, yamlfile
from leukotree.records import runfolder, searchfolder

TABLE = ROOT / "results" / "curves" / "curves.parquet"
PREFIX = "curves-"
"""The name of each study begins so; its data set follows."""
SMALL = {"outer_fold": "int8", "inner_fold": "int8", "epoch": "int16", "configuration": "int16"}


def rows(study: Path) -> Iterator[dict[str, Any]]:
    """The rows of a study, of all its searches."""
    for _, folders in searchfolder.find(study, one_study=True).items():
        for folder in folders:
            fold = yamlfile.load(folder / searchfolder.SETTINGS)[searchfolder.TEST_FOLD]
            place = {
                "data": study.name.removeprefix(PREFIX),
                "variant": searchfolder.variant_of(folder),
                "outer_fold": fold,
            }
            for number, chosen in completed(folder).items():
                for run in searchfolder.runs_of_trial(folder, number):
                    inner = yamlfile.load(run / runfolder.SPEC)["data"]["inner"]["fold"]
                    of_run = {**place, "configuration": number, **chosen, "inner_fold": inner}
                    for row in runfolder.read_metrics(run):
                        if row["kind"] == "epoch":
                            yield {**of_run, "epoch": row["epoch"] + 1, "macro_f1": row["macro_f1"]}


def completed(folder: Path) -> dict[int, dict[str, Any]]:
    """Trial -> its values, of the completed trials of a search."""
    lines = files.read_json_lines(folder / searchfolder.DRAWS)
    ended = {line["trial"] for line in lines if line.get("state") == "completed"}
    return {line["trial"]: line["chosen"] for line in lines if "chosen" in line and line["trial"] in ended}


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("study", type=Path, nargs="+", help="the folder of a study's runs")
    made.add_argument("--out", type=Path, default=TABLE, help="default: %(default)s")
    given = made.parse_args()
    table = pd.DataFrame([row for study in given.study for row in rows(study)]).astype(SMALL)
    numbers = table.select_dtypes("float64").columns
    table[numbers] = table[numbers].astype("float32")
    table.to_parquet(given.out, index=False, compression="zstd")
    counts = table.groupby(["data", "variant"])[["outer_fold", "configuration"]]
    for name, group in counts:
        print(*name, f"{len(group.drop_duplicates())} configurations, {len(group)} rows")


if __name__ == "__main__":
    main()
