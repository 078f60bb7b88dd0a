"""A study's folder, made here from seeded random predictions, becomes a report whose numbers scikit-learn confirms."""

import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student_t
from sklearn.metrics import accuracy_score, f1_score

from leukotree import yamlfile
from leukotree.errors import InputError
from leukotree.report import results, scores, settings
from leukotree.report.collect import collect
from leukotree.report.compare import corrected_difference
from leukotree.report.write import write
from leukotree.spec import RunSpec
from leukotree.taxonomy import Taxonomy

TREE = Taxonomy.paper().prune(["normal", "reactive", "AML", "APML"])
SKILL = {"flat": 1.0, "base": 1.3, "multilabel": 2.6}
SPACE = {
    "loss.gamma": {"uniform": [0.0, 5.0]},
    "optim.lr": {"loguniform": [1.0e-6, 1.0e-3]},
    "optim.batch_size": {"choice": [16, 32, 64]},
}
STUDY = {
    "study": "synthetic",
    "base": {"data": {"shards": "absent", "test_fold": 1}, "optim": {"epochs": 6}},
    "variants": ["flat", "base", "multilabel"],
    "folds": {"outer": 3, "inner": 2},
    "seeds": [0, 1],
    "search": {"algorithm": "tpe", "scheduler": "asha", "trials": 8, "metric": "macro_f1", "space": SPACE},
}
CHOSEN = {
    "flat": {"loss.gamma": 2.5, "optim.lr": 3e-5, "optim.batch_size": 32},
    "base": {"loss.gamma": 4.9, "optim.lr": 3e-5, "optim.batch_size": 32},
    "multilabel": {"loss.gamma": 1.0, "optim.lr": 1.1e-6, "optim.batch_size": 64},
}


def images_of_fold(fold: int, patients: bool = True, one_leaf: bool = False) -> pd.DataFrame:
    """12 patients of 2 to 6 images; a patient has AML or APML cells and, unless `one_leaf`, normal and reactive ones."""
    rng = np.random.default_rng(100 + fold)
    rows = []
    for number in range(12):
        diagnosis = ["AML", "APML"][number % 2]
        kinds = [["normal", "reactive", "AML", "APML"][number % 4]] if one_leaf else ["normal", "reactive", diagnosis, diagnosis]
        rows += [(f"p{fold}-{number}", kind) for kind in kinds for _ in range(rng.integers(1, 4))]
    frame = pd.DataFrame(rows, columns=["patient", "leaf"])
    keys = [f"f{fold}-{i:04}" for i in rng.permutation(len(frame))]
    return frame.assign(key=keys, source="lab", fold=fold, patient=frame["patient"] if patients else "")


def write_run(root: Path, row: dict, images: pd.DataFrame) -> None:
    """A finished run: its logits favour the true path by the variant's skill."""
    folder = root / row["run_name"]
    folder.mkdir(parents=True)
    spec = RunSpec.model_validate({"variant": row["variant"], "seed": row["seed"], "data": {"test_fold": row["test_fold"]}})
    (folder / "spec.yaml").write_text(spec.dump())
    (folder / "taxonomy.json").write_text(json.dumps(TREE.nested()))
    (folder / "status.json").write_text(json.dumps({"state": "done", "epoch": 6, "epochs": 6}))
    (folder / "env.json").write_text(json.dumps({"dataset": "d" * 64, "commit": "c" * 40, "gpus": []}))
    (folder / "attempts.jsonl").write_text(json.dumps({"ranks": 2}) + "\n")
    rows = [{"kind": kind, "epoch": epoch, "seconds": 1.5} for epoch in range(1, 7) for kind in ("step", "epoch")]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rng = np.random.default_rng([row["test_fold"], row["seed"], list(SKILL).index(row["variant"])])
    logits = rng.normal(size=(len(images), len(TREE.edges)))
    logits += SKILL[row["variant"]] * TREE.path_matrix[[TREE.leaves.index(leaf) for leaf in images["leaf"]]]
    for children in TREE.children.values():
        columns = [TREE.edges.index(child) for child in children]
        logits[:, columns] -= np.logaddexp.reduce(logits[:, columns], axis=1, keepdims=True)
    frame = images.assign(**{f"logp:{edge}": logits[:, i].astype(np.float32) for i, edge in enumerate(TREE.edges)})
    frame.to_parquet(folder / "predictions.parquet")


def write_search(root: Path, variant: str, trials: int = 8) -> None:
    folder = root / "search" / variant
    folder.mkdir(parents=True)
    rng = np.random.default_rng(list(SKILL).index(variant))
    table, history = [], []
    for trial in range(trials):
        epochs = 6 if trial % 2 == 0 else int(rng.integers(1, 4))
        curve = np.sort(rng.uniform(0.2, 0.8, epochs))
        history += [{"trial": f"t{trial}", "epoch": e, "macro_f1": v, "seconds": 10 * trial + e} for e, v in enumerate(curve)]
        values = {"loss.gamma": rng.uniform(0, 5), "optim.lr": 10 ** rng.uniform(-6, -3)}
        values["optim.batch_size"] = rng.choice([16, 32, 64])
        state = "completed" if epochs == 6 else "stopped"
        table.append({"trial": f"t{trial}", "state": state, "epochs": epochs, "macro_f1": curve[-1], "best_macro_f1": curve[-1],
                      "seconds": 9.0, **values})  # fmt: skip
    pd.DataFrame(table).to_csv(folder / "trials.csv", index=False)
    pd.DataFrame(history).to_csv(folder / "history.csv", index=False)
    best = {"study": "synthetic", "variant": variant, "metric": "macro_f1", "value": 0.79, "trial": "t2", "trials": trials}
    (folder / "best.yaml").write_text(yamlfile.dump({**best, "chosen": CHOSEN[variant]}))


def expected_runs() -> list[dict]:
    return [{"variant": v, "test_fold": f, "seed": s, "run_name": f"{v}-{f:06x}{s:06x}"}
            for v in SKILL for f in range(3) for s in (0, 1)]  # fmt: skip


def make_study(root: Path, searches: bool = True, **images) -> Path:
    for row in expected_runs():
        write_run(root, row, images_of_fold(row["test_fold"], **images))
    for variant in SKILL if searches else ():
        write_search(root, variant)
    return root


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A complete study; tests that damage it take a copy."""
    return make_study(tmp_path_factory.mktemp("whole") / "synthetic")


@pytest.fixture(scope="module")
def pages(whole, tmp_path_factory) -> tuple[str, str, Path]:
    """Markdown and HTML of the complete study, and the folder that they lie in."""
    out = tmp_path_factory.mktemp("report")
    return (*report(whole, out), out)


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "synthetic"))


def report(root: Path, out: Path, study: dict | None = None) -> tuple[str, str]:
    paths = write(collect(root, study or STUDY, expected_runs()), out)
    return tuple(path.read_text(encoding="utf-8") for path in paths)


def table_row(markdown: str, section: str, *first: str) -> list[str]:
    """The cells of the first table row in a section ("" is the lead) that starts with the given cells."""
    body = markdown.split(f"\n## {section}\n")[1 if section else 0].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in body.splitlines() if line.startswith("| ")]
    return next(row for row in rows if row[: len(first)] == list(first))


def stored(root: Path, variant: str, fold: int, seed: int) -> tuple[list[str], list[str], pd.DataFrame]:
    """True and greedily predicted leaf names straight from the file, by walking the pruned tree."""
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
        markdown, *_ = pages
        accuracy, f1 = ([np.mean([score(*stored(whole, variant, fold, seed)[:2]) for seed in (0, 1)]) for fold in range(3)]
                        for score in (accuracy_score, macro))  # fmt: skip
        row = table_row(markdown, "", variant)
        assert row[1] == mean_sd(accuracy)
        assert row[5] == mean_sd(f1)
        assert row[8] == "3"

    def test_clean_fold_stands_by_itself(self, whole, pages):
        markdown, *_ = pages
        clean = markdown.split("The clean fold alone (fold 1")[1]
        row = [cell.strip() for cell in re.search(r"^\| base \|.*$", clean, re.M).group().strip("|").split("|")]
        assert row[5] == f"{100 * np.mean([macro(*stored(whole, 'base', 1, seed)[:2]) for seed in (0, 1)]):.1f}"
        assert "images of the other folds (0, 2) took part in it" in markdown
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
                    found = group["voted"].value_counts()
                    if (found == found.max()).sum() == 1:
                        right += found.idxmax() == leaf
                    else:  # the tie goes by mean probability of the leaf
                        tied = {name: [f"logp:{edge}" for edge in TREE.path(name)] for name in found.index[found == found.max()]}
                        mass = {name: np.exp(frame.loc[group.index, c].sum(axis=1)).mean() for name, c in tied.items()}
                        right += max(mass, key=mass.get) == leaf
                    n += 1
        shown = table_row(markdown, "Patients", "multilabel", "mode")[4]
        assert shown == f"{right / 2:g} / {n // 2}"
        assert "the pair of patient and true leaf" in markdown
        assert table_row(markdown, "", "variant")[6:8] == ["patient x leaf accuracy", "patient x leaf macro F1"]

    def test_verdict_follows_the_corrected_interval(self, whole, pages):
        markdown, *_ = pages
        fold_means = {v: [np.mean([macro(*stored(whole, v, f, s)[:2]) for s in (0, 1)]) for f in range(3)] for v in SKILL}
        for variant in ("base", "multilabel"):
            d = np.subtract(fold_means[variant], fold_means["flat"])
            half = student_t.ppf(0.975, 2) * math.sqrt(d.var(ddof=1) * (1 / 3 + 1 / 2))  # 3 folds: n_test / n_train = 1 / 2
            verdict = "better" if d.mean() > half else "worse" if d.mean() < -half else "inconclusive"
            row = table_row(markdown, "Is a hierarchy better?", f"{variant} − flat")
            assert row[1:3] == [verdict, f"{100 * d.mean():.1f}"]
            assert row[3] == f"{100 * (d.mean() - half):.1f} to {100 * (d.mean() + half):.1f}"

    def test_confusion_counts_every_image_once_per_seed(self, whole):
        summary = collect(whole, STUDY, expected_runs())
        table = scores.confusion(results.runs_of(summary)["flat"])
        files = [stored(whole, "flat", fold, seed) for fold in range(3) for seed in (0, 1)]
        true, predicted = ([leaf for file in files for leaf in file[i]] for i in (0, 1))
        expected = pd.crosstab(pd.Categorical(true, TREE.leaves), pd.Categorical(predicted, TREE.leaves), dropna=False)
        np.testing.assert_array_equal(table, expected)

    def test_cost_adds_the_trials_and_the_runs(self, pages):
        row = table_row(pages[0], "Cost", "flat")
        # 8 trials of 9 s; 6 runs of 6 epochs of 1.5 s on 2 processes.
        assert row[1:] == ["8", "72", "6", "108", f"{180 / 3600:.2f}"]


class TestCorrectedDifference:
    def test_by_hand(self):
        found = corrected_difference([0.1, 0.2, 0.3], 0.5)
        half = 4.302652729911275 * 0.1 * math.sqrt(1 / 3 + 0.5)
        assert (found.low, found.high) == pytest.approx((0.2 - half, 0.2 + half))
        assert found.verdict == "inconclusive"

    @pytest.mark.parametrize(("values", "verdict"), [([0.2, 0.21, 0.22], "better"), ([-0.2, -0.21, -0.22], "worse")])
    def test_a_steady_difference_is_told(self, values, verdict):
        assert corrected_difference(values, 0.5).verdict == verdict

    @pytest.mark.parametrize(("values", "verdict"), [
        ([], "not estimable"), ([0.3], "not estimable"), ([0, 0], "inconclusive"), ([0.25, 0.25], "not estimable"),
    ])  # fmt: skip
    def test_without_spread_there_is_no_interval(self, values, verdict):
        found = corrected_difference(values, 0.5)
        assert found.verdict == verdict
        assert math.isnan(found.low)


class TestBorder:
    @pytest.mark.parametrize(("domain", "value", "side"), [
        ({"uniform": [0, 5]}, 4.9, "upper"), ({"uniform": [0, 5]}, 0.1, "lower"), ({"uniform": [0, 5]}, 2.0, ""),
        ({"loguniform": [1e-6, 1e-3]}, 1.1e-6, "lower"), ({"loguniform": [1e-6, 1e-3]}, 2e-5, ""),
        ({"choice": [16, 32, 64]}, 64, "upper"), ({"choice": [16, 32, 64]}, 32, ""),
        ({"choice": [1, 10]}, 10, ""), ({"choice": ["a", "b", "c"]}, "a", ""), ({"choice": [None, 1, 2]}, 1, ""),
    ])  # fmt: skip
    def test_which_values_lie_on_it(self, domain, value, side):
        assert settings.border(domain, value) == side

    def test_the_report_flags_them_beside_the_papers_values(self, pages):
        markdown, *_ = pages
        assert table_row(markdown, "Hyperparameters", "learning rate")[1:] == [
            "1e-6", "1e-06 to 0.001, log", "3e-05", "3e-05", "1.1e-06 (lower border)",
        ]  # fmt: skip
        gamma = table_row(markdown, "Hyperparameters", "focal gamma")[1:]
        assert gamma == ["not stated", "0 to 5", "2.5", "4.9 (upper border)", "1"]
        assert table_row(markdown, "Hyperparameters", "batch size")[-1] == "64 (upper border)"
        assert "optim.lr of multilabel, optim.batch_size of multilabel, loss.gamma of base. A better value" in markdown


class TestPages:
    def test_html_needs_nothing_from_outside(self, pages):
        _, html, _ = pages

        class Links(HTMLParser):
            def __init__(self):
                super().__init__()
                self.found, self.ids, self.open = [], set(), []

            def handle_starttag(self, tag, attrs):
                self.found += [value for name, value in attrs if name in ("src", "href", "srcset", "action")]
                self.ids |= {value for name, value in attrs if name == "id"}
                if tag not in ("meta", "img", "link", "br"):
                    self.open.append(tag)

            def handle_endtag(self, tag):
                assert self.open.pop() == tag

        page = Links()
        page.feed(html)
        assert page.open == []
        assert page.found
        assert all(link.startswith(("data:image/png;base64,", "#")) for link in page.found)
        assert {link[1:] for link in page.found if link.startswith("#")} <= page.ids
        assert not re.search(r"<script|<link|@import|url\(", html)

    def test_markdown_shows_each_figure_that_lies_beside_it(self, pages):
        markdown, _, out = pages
        named = set(re.findall(r"\]\((figures/[^)]+)\)", markdown))
        assert named == {f"figures/{path.name}" for path in (out / "figures").iterdir()}
        assert len(named) == 4
        assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in named)

    def test_a_study_with_every_default_written_out_gives_the_same_pages(self, whole, pages, tmp_path):
        forms = dict.fromkeys(("uniform", "loguniform", "choice"))
        space = {key: forms | domain for key, domain in SPACE.items()}
        base = RunSpec.model_validate(STUDY["base"]).model_dump(mode="json")
        written_out = {**STUDY, "base": base, "search": {**STUDY["search"], "space": space}}
        assert report(whole, tmp_path, written_out) == pages[:2]

    def test_same_files_give_the_same_bytes(self, whole, pages, tmp_path):
        assert report(whole, tmp_path) == pages[:2]
        for path in (tmp_path / "figures").iterdir():
            assert path.read_bytes() == (pages[2] / "figures" / path.name).read_bytes()

    def test_every_table_is_rectangular(self, pages):
        markdown, *_ = pages
        for table in re.findall(r"(?:^\|.*\n)+", markdown, re.M):
            assert len({line.count(" | ") for line in table.splitlines() if "---" not in line}) == 1

    def test_names_are_escaped(self, copy, tmp_path):
        status = {"state": "failed", "message": "<b>out of | memory</b>"}
        (copy / expected_runs()[0]["run_name"] / "status.json").write_text(json.dumps(status))
        markdown, html = report(copy, tmp_path / "out")
        assert "<b>" not in markdown + html
        assert "out of \\| memory" in markdown


class TestWithPartsMissing:
    def test_runs_without_a_result_are_listed_and_left_out(self, copy, tmp_path):
        names = [row["run_name"] for row in expected_runs()]
        shutil.rmtree(copy / names[0])
        (copy / names[1] / "status.json").write_text(json.dumps({"state": "running"}))
        (copy / names[2] / "predictions.parquet").unlink()
        markdown, html = report(copy, tmp_path / "out")
        assert "3 of 18 expected runs have no result yet" in " ".join(html.split())
        for name, state in zip(names, ("not started", "running", "done, but predictions.parquet is missing"), strict=False):
            assert f"| {name} | {state} |" in markdown
        assert table_row(markdown, "", "flat")[8] == "2"

    def test_a_broken_status_is_no_result(self, copy):
        (copy / "flat-000000000000" / "status.json").write_text("{")
        assert [run.name for run in collect(copy, STUDY, expected_runs()).missing] == ["flat-000000000000"]

    def test_runs_that_the_study_does_not_expect_do_not_count(self, copy, pages, tmp_path):
        shutil.copytree(copy / "flat-000000000000", copy / "flat-ffffffffffff")
        assert report(copy, tmp_path / "after") == pages[:2]

    def test_search_without_runs(self, copy, tmp_path):
        for row in expected_runs():
            shutil.rmtree(copy / row["run_name"])
        markdown, _ = report(copy, tmp_path / "out")
        assert "## Search" in markdown
        assert "| accuracy |" not in markdown
        assert markdown.count("not started") == 18

    def test_runs_without_search_are_all_clean(self, copy, tmp_path):
        shutil.rmtree(copy / "search")
        markdown, _ = report(copy, tmp_path / "out")
        assert "not nested" not in markdown
        assert table_row(markdown, "Folds", "0", "flat")[2] == "no search"

    def test_a_search_with_fewer_trials_is_flagged(self, copy, tmp_path):
        shutil.rmtree(copy / "search" / "base")
        write_search(copy, "base", trials=3)
        markdown, _ = report(copy, tmp_path / "out")
        assert markdown.count("flat 8, base 3, multilabel 8") == 2

    def test_one_fold_gives_no_verdict_and_no_spread(self, copy, tmp_path):
        for row in expected_runs():
            if row["test_fold"] != 1:
                shutil.rmtree(copy / row["run_name"])
        markdown, _ = report(copy, tmp_path / "out")
        assert table_row(markdown, "Is a hierarchy better?", "base − flat")[1] == "not estimable"
        assert "±" not in table_row(markdown, "", "flat")[1]

    def test_nothing_at_all_says_which_command_to_run(self, tmp_path):
        with pytest.raises(InputError, match=r"nothing to report yet; run `leukotree sweep sweeps/synthetic\.yaml`"):
            collect(tmp_path, STUDY, expected_runs())


class TestPatientUnits:
    def test_without_patients_no_claim_is_made(self, tmp_path):
        markdown, _ = report(make_study(tmp_path / "s", searches=False, patients=False), tmp_path / "out")
        assert "Not available: the images carry no patient" in markdown
        assert table_row(markdown, "", "flat")[6:8] == ["–", "–"]

    def test_with_one_leaf_per_patient_the_unit_is_the_patient(self, tmp_path):
        markdown, _ = report(make_study(tmp_path / "s", searches=False, one_leaf=True), tmp_path / "out")
        assert "the unit is the patient." in markdown
        assert "pair of patient and true leaf" not in markdown
        assert table_row(markdown, "", "variant")[6:8] == ["patient accuracy", "patient macro F1"]
        assert table_row(markdown, "Patients", "flat", "mode")[4].endswith(" / 36")


def damage_predictions(folder: Path, change) -> None:
    frame = change(pd.read_parquet(folder / "predictions.parquet"))
    frame.to_parquet(folder / "predictions.parquet")


@pytest.mark.parametrize(("change", "message"), [
    (lambda f: pd.concat([f, f.head(1)]), "stands there twice"),
    (lambda f: f.assign(leaf="lymph"), "unknown leaf 'lymph'"),
    (lambda f: f.assign(**{"logp:AML": np.nan}), "no number"),
    (lambda f: f.assign(fold=2), "of fold 2, not of the test fold"),
    (lambda f: f.head(0), "no rows"),
    (lambda f: f.head(5), "other images or labels than in"),
])  # fmt: skip
def test_damaged_predictions_are_refused_by_name(copy, change, message):
    damage_predictions(copy / "base-000000000000", change)
    with pytest.raises(InputError, match=rf"base-000000000000/predictions\.parquet: .*{message}"):
        collect(copy, STUDY, expected_runs())


@pytest.mark.parametrize(("name", "content", "message"), [
    ("base-000000000000/env.json", "{", r"base-000000000000/env\.json: cannot be read as JSON"),
    ("base-000000000000/env.json", '{"dataset": "other"}', r"base-000000000000/env\.json: made from other shards than flat-"),
    ("base-000000000000/predictions.parquet", "no parquet", "base-000000000000: its predictions cannot be read"),
    ("search/flat/trials.csv", "trial,state\n", r"search/flat/trials\.csv: no column 'epochs'"),
    ("search/flat/trials.csv", "", r"search/flat/trials\.csv: cannot be read"),
    ("search/flat/best.yaml", "chosen: 3\n", r"search/flat/best\.yaml: no mapping `chosen`"),
])  # fmt: skip
def test_damaged_files_are_refused_by_name(copy, name, content, message):
    (copy / name).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        collect(copy, STUDY, expected_runs())
    assert "\n" not in str(caught.value)


def test_a_folder_that_holds_another_run_is_refused(copy):
    shutil.copy(copy / "flat-000001000000" / "spec.yaml", copy / "flat-000000000000" / "spec.yaml")
    with pytest.raises(InputError, match="test_fold is 1, the study expects 0"):
        collect(copy, STUDY, expected_runs())


def test_runs_on_another_tree_are_refused(copy):
    other = Taxonomy.paper().prune(["reactive", "normal", "AML", "APML"]).nested()
    top = other["root"]
    swapped = {"root": {"reactive": None, "normal": None, "leukemia": top["leukemia"]}}
    (copy / "multilabel-000002000001" / "taxonomy.json").write_text(json.dumps(swapped))
    with pytest.raises(InputError, match=r"multilabel-000002000001/taxonomy\.json: differs from that of flat"):
        collect(copy, STUDY, expected_runs())
