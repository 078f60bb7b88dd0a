"""The report of a study of seeded random predictions. Its numbers are compared with scikit-learn's."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score

from leukotree.spec import RunSpec
from tests.helpers.study_results import SKILL, SPACE, STUDY, TREE, report, section, table_row


def stored(root, variant: str, fold: int, seed: int) -> tuple[list[str], list[str], pd.DataFrame]:
    """True leaf names, greedily predicted ones, and the frame, read from the file by walking the pruned
    tree."""
    frame = pd.read_parquet(root / f"{variant}-{fold:06x}{seed:06x}" / "predictions.parquet")
    top = frame[["logp:normal", "logp:reactive", "logp:leukemia"]].to_numpy().argmax(axis=1)
    sub = frame[["logp:AML", "logp:APML"]].to_numpy().argmax(axis=1)
    predicted = [["normal", "reactive", ["AML", "APML"][s]][t] for t, s in zip(top, sub, strict=True)]
    return frame["leaf"].tolist(), predicted, frame


def macro(true, predicted) -> float:
    return f1_score(true, predicted, labels=list(TREE.leaves), average="macro", zero_division=0)


def mean_sd(values) -> str:
    return f"{100 * np.mean(values):.1f} ± {100 * np.std(values, ddof=1):.1f}"


class TestNumbers:
    @pytest.mark.parametrize("variant", SKILL)
    def test_main_table_is_the_mean_over_folds_of_the_mean_over_seeds(self, whole, pages, variant):
        accuracy, f1 = (
            [
                np.mean([score(*stored(whole, variant, fold, seed)[:2]) for seed in (0, 1)])
                for fold in range(3)
            ]
            for score in (accuracy_score, macro)
        )
        row = table_row(pages[0], "", variant)
        assert row[1] == mean_sd(accuracy)
        assert row[5] == mean_sd(f1)
        assert row[8] == "3"

    def test_the_clean_fold_is_shown_alone(self, whole, pages):
        markdown, *_ = pages
        clean = markdown.split("The clean fold alone (fold 1")[1]
        row = [
            cell.strip() for cell in re.search(r"^\| base \|.*$", clean, re.M).group().strip("|").split("|")
        ]
        assert (
            row[5] == f"{100 * np.mean([macro(*stored(whole, 'base', 1, seed)[:2]) for seed in (0, 1)]):.1f}"
        )
        assert "it used images of the other folds (0, 2)" in markdown
        assert table_row(markdown, "Folds", "1", "base")[2] == "clean"
        assert table_row(markdown, "Folds", "2", "base")[2] == "seen by the search"

    def test_patient_level_is_the_mode_within_patient_and_leaf(self, whole, pages):
        markdown, *_ = pages
        right = n = 0
        for fold in range(3):
            for seed in (0, 1):
                true, predicted, frame = stored(whole, "multilabel", fold, seed)
                votes = pd.DataFrame({"patient": frame["patient"], "leaf": true, "voted": predicted})
                for (_, leaf), group in votes.groupby(["patient", "leaf"]):
                    votes_of_group = group["voted"].value_counts()
                    if (votes_of_group == votes_of_group.max()).sum() == 1:
                        right += votes_of_group.idxmax() == leaf
                    else:  # the tie goes by mean probability of the leaf
                        tied = {
                            name: [f"logp:{edge}" for edge in TREE.path(name)]
                            for name in votes_of_group.index[votes_of_group == votes_of_group.max()]
                        }
                        mass = {
                            name: np.exp(frame.loc[group.index, c].sum(axis=1)).mean()
                            for name, c in tied.items()
                        }
                        right += max(mass, key=mass.get) == leaf
                    n += 1
        shown = table_row(markdown, "Patients", "multilabel", "mode")[2]
        assert shown == f"{right / 2:g} / {n // 2}"
        assert "the pair of patient and true leaf" in markdown
        assert table_row(markdown, "", "variant")[6:8] == [
            "patient x leaf accuracy",
            "patient x leaf macro F1",
        ]

    def test_leaves_are_the_mean_confusion_over_seeds(self, whole, pages):
        files = [stored(whole, "flat", fold, seed) for fold in range(3) for seed in (0, 1)]
        true, predicted = ([leaf for file in files for leaf in file[i]] for i in (0, 1))
        row = table_row(pages[0], "Leaves", "flat", "AML")
        assert row[5] == f"{100 * f1_score(true, predicted, labels=['AML'], average='macro'):.1f}"
        assert row[7:] == [
            str(true.count("AML") // 2),
            str(len({p for f in files for p in f[2].query("leaf == 'AML'")["patient"]})),
        ]
        low, high = map(float, row[4].split(" to "))
        assert low < float(row[3]) < high

    def test_cost_adds_the_trials_and_the_runs(self, pages):
        row = table_row(pages[0], "Cost", "flat")
        # 8 trials of 9 s; 6 runs of 6 epochs of 1.5 s on 2 processes.
        assert row[1:] == ["8", "72", "6", "108", f"{180 / 3600:.2f}"]


class Links(HTMLParser):
    """The links of an HTML page, its ids, and the tags that are still open."""

    def __init__(self):
        super().__init__()
        self.links, self.ids, self.open = [], set(), []

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "action")]
        self.ids |= {value for name, value in attrs if name == "id"}
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


class TestPages:
    def test_html_needs_nothing_from_outside(self, pages):
        _, html, _ = pages
        page = Links()
        page.feed(html)
        assert page.open == []
        assert page.links
        files = [link for link in page.links if not link.startswith(("data:image/png;base64,", "#"))]
        assert all(re.fullmatch(r"(tables/[a-z0-9-]+\.csv|(\.\./)+[\w./-]+/)", link) for link in files)
        assert {link[1:] for link in page.links if link.startswith("#")} <= page.ids
        assert html.count("<script") == 1
        assert not re.search(r"<script [^>]|<link|@import|url\((?!#)|https?://(?!www\.w3\.org/)", html)

    def test_its_policy_allows_its_own_script_and_nothing_from_elsewhere(self, pages):
        _, html, _ = pages
        policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)[1]
        rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
        script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert rules["script-src"] == f"'sha256-{digest}'"
        assert rules["default-src"] == "'none'"
        assert rules["img-src"] == "data:"

    def test_a_report_stays_small(self, pages):
        assert len(pages[1].encode()) < 2e6
        assert not re.search(r"[0-9]\.[0-9]{5,}", re.search(r"<svg.*?</svg>", pages[1], re.DOTALL)[0])

    def test_markdown_shows_each_figure_that_lies_beside_it(self, pages):
        markdown, _, out = pages
        named = set(re.findall(r"\]\((figures/[^)]+)\)", markdown))
        assert named == {f"figures/{path.name}" for path in (out / "figures").glob("*.png")}
        assert {path.stem for path in (out / "figures").glob("*.svg")} == {Path(name).stem for name in named}
        drawn = [
            "verdict",
            "scores",
            "tree",
            "parallel",
            "differences",
            "map-lr-batch",
            "marginals",
            "best-so-far",
            "flow",
            "abstention",
            "reliability",
            "net_benefit",
            "confusion",
            "learning-curves",
        ]
        assert named == {f"figures/{name}.png" for name in [*drawn, "learning-curves"]}
        assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in named)

    def test_the_answers_come_first(self, pages):
        titles = re.findall(r"^## (.*)$", pages[0], re.M)
        assert titles[:2] == ["Is a hierarchy better?", "The answer: what the paper leaves out"]
        assert (
            section(pages[0], "")
            .split("\n\n")[2]
            .startswith("By the macro F1 of images, `base` against `flat` is")
        )

    @pytest.mark.slow("renders two reports")
    def test_same_files_and_the_study_with_every_default_written_out_give_the_same_bytes(
        self, whole, pages, tmp_path
    ):
        forms = dict.fromkeys(("uniform", "loguniform", "choice"))
        space = {key: forms | domain for key, domain in SPACE.items()}
        base = RunSpec.model_validate(STUDY["base"]).model_dump(mode="json")
        written_out = {**STUDY, "base": base, "search": {**STUDY["search"], "space": space}}
        assert report(whole, tmp_path, written_out) == pages[:2]
        for path in (tmp_path / "figures").iterdir():
            assert path.read_bytes() == (pages[2] / "figures" / path.name).read_bytes()

    def test_every_table_is_rectangular(self, pages):
        for table in re.findall(r"(?:^\|.*\n)+", pages[0], re.M):
            assert len({line.count(" | ") for line in table.splitlines() if "---" not in line}) == 1
