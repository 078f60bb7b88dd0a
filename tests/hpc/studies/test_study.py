"""The runs of a study file, and the one-line errors of a bad one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hpc.doctor import precheck
from hpc.studies import study
from hpc.studies.study import SearchId, Study
from leukotree.errors import InputError
from leukotree.evaluation import decide

FILE: dict[str, Any] = {
    "study": "focal",
    "base": {"optim": {"batch_size": 32, "epochs": 40}},
    "variants": ["flat", "multilabel"],
    "folds": {"outer": 4, "inner": 3},
    "seeds": [3, 5],
    "search": {
        "trials": 8,
        "space": {
            "loss.gamma": {"uniform": [0, 5]},
            "optim.lr": {"loguniform": [1e-6, 1e-3]},
            "optim.batch_size": {"choice": [16, 32]},
        },
    },
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(FILE))
    return file


def test_every_variant_fold_and_seed_is_one_run(path: Path) -> None:
    plan = study.load(path)
    chosen = {"flat": {"loss.gamma": 1.5}, "multilabel": {"loss.gamma": 0.0, "optim.lr": 1e-4}}
    best = {variant: dict.fromkeys(range(4), values) for variant, values in chosen.items()}
    specs = plan.fold_specs(best)
    assert len({spec.run_name for spec in specs}) == 2 * 4 * 2
    assert {(spec.variant, spec.data.test_fold, spec.seed) for spec in specs} == {
        (variant, fold, seed) for variant in plan.variants for fold in range(4) for seed in (3, 5)
    }
    assert all(spec.data.inner is None and spec.optim.epochs == 40 for spec in specs)
    assert {spec.loss.gamma for spec in specs if spec.variant == "flat"} == {1.5}
    assert plan.expected(best)[0] == {
        "variant": "flat",
        "repeat": 0,
        "test_fold": 0,
        "seed": 3,
        "run_name": specs[0].run_name,
    }
    assert plan.root == Path("results/runs/focal")


def test_a_trial_is_its_inner_folds_and_leaves_the_test_fold_alone(path: Path) -> None:
    plan = study.load(path)
    specs = plan.trial_specs("flat", {"optim.lr": 1e-5}, 2)
    assert [(spec.data.inner.folds, spec.data.inner.fold) for spec in specs if spec.data.inner] == [
        (3, 0),
        (3, 1),
        (3, 2),
    ]
    assert {(spec.data.test_fold, spec.seed, spec.optim.lr) for spec in specs} == {(2, 3, 1e-5)}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.trails=1", "unknown key 'search.trails', did you mean 'search.trials'?"),
        ("base.optim.lrr=1", "unknown key 'base.optim.lrr', did you mean 'base.optim.lr'?"),
        ("optim.epochs=5", "unknown key 'optim', did you mean 'base.optim.epochs'?"),
        ("optim={epochs: 5, lr: 1}", "unknown key 'optim', did you mean 'base.optim'?"),
        ("loss.gama=1", "unknown key 'loss', did you mean 'base.loss.gamma'?"),
        ("epochs=5", "unknown key 'epochs', did you mean 'base.optim.epochs'?"),
        ("trials=5", "unknown key 'trials', did you mean 'search.trials'?"),
        ("backbone.name=resnet18", "unknown key 'backbone', did you mean 'base.backbone.name'?"),
        ("data.shards=d", "unknown key 'data', did you mean 'base.data.shards'?"),
        ("base.search.trials=5", "unknown key 'base.search', did you mean 'search.trials'?"),
        ("base.optm.lr=1", "unknown key 'base.optm', did you mean 'base.optim'?"),
        ("base.epochs=1", "unknown key 'base.epochs', did you mean 'base.optim.epochs'?"),
        ("seed=1", "unknown key 'seed', did you mean 'seeds'?"),
        (
            "search.space.base.optim.lr={choice: [1]}",
            "base.optim.lr: no key of a run spec, did you mean 'optim.lr'?",
        ),
        ("search.space.lr={choice: [1]}", "search.space.lr: no key of a run spec, did you mean 'optim.lr'?"),
        ("quite.another=1", "unknown key 'quite'; known keys: study, base, "),
        ("search.trials=-1", "search.trials: Input should be greater than or equal to 0"),
        (
            "search.space.optim.lr={uniform: [3, 1]}",
            "search.space.optim.lr: the lowest value 3 must be below the highest 1",
        ),
        (
            "search.space.optim.lr={loguniform: [0, 1]}",
            "search.space.optim.lr: loguniform needs a lowest value above 0",
        ),
        (
            "search.space.optim.lr={uniform: [0, 1], choice: [1]}",
            "search.space.optim.lr: give exactly one of",
        ),
        (
            "search.space.optim.clip={choice: []}",
            "search.space.optim.clip.choice: List should have at least 1 item",
        ),
        ("search.space.optim.clip={choice: [1, 1]}", "search.space.optim.clip: a value occurs twice"),
        ("search.space.optim.lr={uniform: [-1, 1]}", "search.space.optim.lr: Input should be greater than 0"),
        (
            "search.space.loss.tau={uniform: [0, 2]}",
            "search.space.loss.tau: Input should be less than or equal to 1",
        ),
        (
            "search.space.optim.batch_size={uniform: [8, 64]}",
            "search.space.optim.batch_size: Input should be a valid integer",
        ),
        (
            "search.space.optim.batchsize={choice: [1]}",
            "search.space.optim.batchsize: no key of a run spec, did you mean",
        ),
        (
            "search.space.optim.steps={choice: [40, 80]}",
            "search.space.optim.steps: cannot be varied, all trials get the same",
        ),
        (
            "search.space.optim.epochs={choice: [1, 2]}",
            "search.space.optim.epochs: cannot be varied, all trials get the same",
        ),
        ("search.space.seed={choice: [1, 2]}", "search.space.seed: cannot be varied"),
        ("base.seed=1", "base.seed: the study's `seeds` decides it; leave it out"),
        ("base.variant=flat", "base.variant: the study's `variants` decides it"),
        ("base.data.inner={folds: 3}", "base.data.inner: the study's `folds` decides it"),
        ("base.data.test_fold=4", "base.data.test_fold: 4 does not exist, folds.outer is 4"),
        ("seeds=[1, 1]", "seeds: a value occurs twice in [1, 1]"),
        ("variants=[]", "variants: Tuple should have at least 1 item"),
        ("study=../elsewhere", "study: String should match pattern"),
        (
            "search.space.loss.gamma={choice: [2026-01-01]}",
            "a study may only have texts, numbers, lists and mappings",
        ),
        (
            "search.space.loss.beta={uniform: [1, 9]}",
            "search.space.loss.beta: has no effect with loss.kind focal; set it to soft",
        ),
        ("decision=viterbi", "decision: no rule 'viterbi'; there are greedy, joint, marginal, expected_cost"),
        ("decision={flat: greedy, base: best}", "decision: no rule 'best'"),
        (
            "decision={flat: joint, multilabel: greedy}",
            "decision: variants cannot be compared under different rules (flat by joint, "
            "multilabel by greedy); give one rule for all",
        ),
        ("decision={flat: joint}", "(flat by joint, multilabel by greedy)"),
        ("costs={AML: {AML: 1}}", "costs.AML.AML: a right answer costs 0, not 1; leave it out"),
        ("costs={AML: {ALL: -2}}", "costs.AML.ALL: -2 is no cost; give 0 or more"),
        ("costs.AML.ALL=dear", "costs.AML.ALL: Input should be a valid number"),
        ("operating.specificity=1", "operating.specificity: Input should be less than 1"),
        ("operating={sensitivity: 0.9}", "unknown key 'operating.sensitivity'"),
        ("rope=-0.1", "rope: Input should be greater than or equal to 0"),
        ("primary=[[multilabel, base]]", "primary: 'base' is none of the variants flat, multilabel"),
        ("folds.repeats=0", "folds.repeats: Input should be greater than or equal to 1"),
        ("base.data.repeat=1", "base.data.repeat: the study's `folds` decides it; leave it out"),
        ("search.space.data.repeat={choice: [0, 1]}", "search.space.data.repeat: cannot be varied"),
        ("primary=[[flat, flat]]", "primary: 'flat' is compared with itself"),
        ("grid={data.shards: [a, b]}", "grid.data.shards: cannot be varied, a study has one data set"),
        ("search.rerun_seeds=0", "search.rerun_seeds: Input should be greater than or equal to 1"),
        ("search.rungs=trials", "search.rungs: Input should be 'epochs' or 'folds'"),
    ],
)
def test_bad_studies_are_refused_in_one_line(path: Path, override: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        study.load(path, [override])
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_each_outer_fold_has_a_search_or_one_serves_all(path: Path) -> None:
    nested, single = study.load(path), study.load(path, ["search.nested=false", "base.data.test_fold=2"])
    assert nested.search_ids == [
        SearchId(variant, fold) for fold in range(4) for variant in ("flat", "multilabel")
    ]
    assert single.search_ids == [SearchId("flat", 2), SearchId("multilabel", 2)]
    root = Path("results/runs/focal/search")
    assert [nested.search_folder(search_id) for search_id in nested.search_ids[:2]] == [
        root / "flat/fold0",
        root / "multilabel/fold0",
    ]
    assert single.search_folder(single.search_ids[0]) == root / "flat"
    assert (nested.search_id("flat", 3), single.search_id("flat", 3)) == (
        SearchId("flat", 3),
        SearchId("flat", 2),
    )


def test_repeats_are_further_outer_folds_with_searches_of_their_own(path: Path) -> None:
    """The runs of repeat 0 are those of a study without repeats."""
    once, twice = study.load(path), study.load(path, ["folds.repeats=2"])
    assert twice.search_ids[: len(once.search_ids)] == once.search_ids
    more = twice.search_ids[len(once.search_ids) :]
    assert more == [SearchId(v, fold, 1) for fold in range(4) for v in ("flat", "multilabel")]
    root = Path("results/runs/focal/search")
    assert twice.search_folder(more[-1]) == root / "multilabel/repeat1-fold3"
    assert str(more[-1]) == "multilabel fold 3 of repeat 1"
    best = {"flat": {number: {"loss.gamma": float(number)} for number in twice.outer_folds}}
    specs = twice.fold_specs(best)
    assert [spec.run_name for spec in specs[:8]] == [spec.run_name for spec in once.fold_specs(best)]
    places = [(spec.data.repeat, spec.data.test_fold, spec.loss.gamma) for spec in specs[::2]]
    assert places == [(number // 4, number % 4, number) for number in range(8)]
    assert {row["repeat"] for row in twice.expected(best)} == {0, 1}
    inner = twice.trial_specs("flat", {}, 3, repeat=1)
    assert {(spec.data.repeat, spec.data.test_fold) for spec in inner} == {(1, 3)}
    single = study.load(path, ["folds.repeats=2", "search.nested=false"])
    assert single.search_ids == [SearchId("flat", 0), SearchId("multilabel", 0)]
    assert single.search_id("flat", 3, 1) == SearchId("flat", 0)


def test_each_outer_fold_runs_the_values_that_were_chosen_for_it(path: Path) -> None:
    specs = study.load(path).fold_specs({"flat": {0: {"loss.gamma": 1.0}, 2: {"loss.gamma": 3.0}}})
    assert [(spec.data.test_fold, spec.seed, spec.loss.gamma) for spec in specs] == [
        (0, 3, 1.0),
        (0, 5, 1.0),
        (2, 3, 3.0),
        (2, 5, 3.0),
    ]


def test_inner_folds_of_the_chosen_values_leave_the_outer_fold_out(path: Path) -> None:
    """They are runs of their own, whose names differ from those of the outer fold."""
    plan, best = study.load(path), {"flat": {0: {"loss.gamma": 1.0}, 2: {"loss.gamma": 3.0}}}
    specs = plan.inner_specs(best)
    assert [
        (spec.data.test_fold, spec.seed, spec.loss.gamma, spec.data.inner.fold)
        for spec in specs
        if spec.data.inner
    ] == [
        (fold, 3, gamma, inner) for fold, gamma in ((0, 1.0), (2, 3.0)) for inner in range(plan.folds.inner)
    ]
    names = {spec.run_name for spec in (*specs, *plan.fold_specs(best))}
    assert len(names) == len(specs) + 4


def test_a_key_is_searched_where_it_has_an_effect(path: Path) -> None:
    """Isolation is not searched in flat and base, and the isolation of `base` is left out of their runs."""
    keys = [
        "search.space.loss.isolation={choice: [shared, detached]}",
        'variants=["flat", "base", "multilabel"]',
    ]
    plan = study.load(path, [*keys, "base.loss.isolation=chained"])
    assert set(plan.space("multilabel")) - set(plan.space("flat")) == {"loss.isolation"}
    assert plan.space("base") == plan.space("flat")
    chosen = {"loss.isolation": "detached", "loss.gamma": 1.0}
    assert [plan.spec(variant, chosen, 0, 0).loss.isolation for variant in plan.variants] == [
        "shared",
        "shared",
        "detached",
    ]
    assert [plan.spec(variant, {}, 0, 0).loss.isolation for variant in plan.variants] == [
        "shared",
        "shared",
        "chained",
    ]
    with pytest.raises(InputError, match=r"search\.space\.loss\.isolation: has no effect in flat, base"):
        study.load(path, [keys[0], "variants=[flat, base]"])
    weighting = "search.space.loss.weighting={choice: [fixed, uncertainty]}"
    with pytest.raises(InputError, match=r"search\.space\.loss\.weighting: .*base has a model per decision"):
        study.load(path, [weighting, "variants=[flat, base]"])
    only = study.load(path, ["search={trials: 2, space: {loss.isolation: {choice: [shared, detached]}}}"])
    with pytest.raises(
        InputError, match=r"search\.space: no key has an effect in flat; leave flat out of `variants`"
    ):
        only.require_search()


def test_a_key_without_effect_beside_another_adds_no_run(path: Path) -> None:
    plan = study.load(path)
    one, other = (
        plan.spec("multilabel", {"loss.isolation": "detached", "loss.surgery": way}, 0, 0)
        for way in ("pcgrad", "cagrad")
    )
    assert one == other
    assert plan.spec("multilabel", {"loss.kind": "conditional", "loss.gamma": 1.0}, 0, 0).loss.gamma == 2.0
    given = {"loss.isolation": "projected", "loss.surgery": "pcgrad", "loss.leader": 2}
    assert plan.with_effect("multilabel", given) == {"loss.isolation": "projected", "loss.surgery": "pcgrad"}
    assert plan.with_effect("flat", given) == {}


def test_fresh_seeds_differ_from_the_seed_of_the_trials(path: Path) -> None:
    plan = study.load(path, ["search.rerun_seeds=50"])
    seeds = plan.fresh_seeds(0)
    assert len(set(seeds)) == 50
    again = study.load(path, ["search.rerun_seeds=50", f"seeds=[{seeds[7]}]"]).fresh_seeds(0)
    assert len(set(again)) == 50
    assert seeds[7] not in again
    assert again[:7] == seeds[:7]
    assert study.load(path, ["search.seed=1"]).fresh_seeds(0) != seeds[:3]


def test_reruns_can_have_inner_folds_of_their_own(path: Path) -> None:
    same, fresh = (study.load(path, [f"search.rerun_splits={kind}"]) for kind in ("same", "fresh"))
    deals = [
        [spec.data.inner.seed for spec in plan.trial_specs("flat", {}, 0, seed) if spec.data.inner]
        for plan, seed in ((same, None), (same, 77), (fresh, None), (fresh, 77))
    ]
    inner = same.folds.inner
    assert deals == [[0] * inner, [0] * inner, [0] * inner, [77] * inner]
    assert same.trial_specs("flat", {}, 0) == fresh.trial_specs("flat", {}, 0)


def test_the_number_of_reruns_can_be_a_share_of_the_trials(path: Path) -> None:
    plan = study.load(path, ["search.rerun_top=0", "search.rerun_share=0.25", "search.rerun_seeds=3"])
    assert [plan.search.rerun_count(trials) for trials in (40, 12, 1)] == [3, 1, 1]
    assert study.load(path, ["search.rerun_top=5"]).search.rerun_count(3) == 3
    with pytest.raises(InputError, match="rerun_top and rerun_share: give one of them"):
        study.load(path, ["search.rerun_top=5", "search.rerun_share=0.25"])


def test_each_fold_has_fresh_seeds_of_its_own(path: Path) -> None:
    plan = study.load(path, ["search.rerun_seeds=20"])
    seeds = [seed for fold in (None, *range(5)) for seed in plan.fresh_seeds(fold)]
    assert len(set(seeds)) == 6 * 20
    assert plan.fresh_seeds(3) == plan.fresh_seeds(3)


def test_only_known_decision_rules_are_accepted(path: Path) -> None:
    for rule in decide.RULES:
        assert study.load(path, [f"decision={rule}"]).decision == rule
    assert study.load(path, ["decision={flat: joint, multilabel: joint}"]).decision == {
        "flat": "joint",
        "multilabel": "joint",
    }
    # The rule of a variant that the study does not have changes nothing.
    assert study.load(path, ["decision={flat: joint, multilabel: joint, base: greedy}"])
    assert study.load(path, ["variants=[flat]", "decision={flat: joint}"])
    assert study.load(path, ["decision={flat: greedy}"])


def test_rungs_are_epochs_or_inner_folds(path: Path) -> None:
    assert (study.load(path).reports, study.load(path).grace()) == (40, 8)
    folds = study.load(path, ["search.rungs=folds"])
    assert (folds.reports, folds.grace()) == (3, 1)
    assert study.load(path, ["search.rungs=folds", "search.grace=2"]).grace() == 2


def test_overrides_reach_keys_that_have_dots_of_their_own(path: Path) -> None:
    plan = study.load(path, ["search.trials=2", "search.space.loss.tau={choice: [0, 1]}"])
    assert plan.search.trials == 2
    assert plan.search.space["loss.tau"].choice == [0, 1]
    assert plan.search.space.keys() > {"loss.gamma", "optim.lr"}


def test_nothing_to_search(path: Path) -> None:
    with pytest.raises(InputError, match=r"no trials; set search\.trials"):
        study.load(path, ["search={}"]).require_search()
    with pytest.raises(InputError, match=r"search\.space is empty"):
        study.load(path, ["search={trials: 3}"]).require_search()


@given(epochs=st.integers(1, 300), warmup=st.floats(0, 0.9))
def test_asha_waits_for_the_warm_up_and_15_per_cent(epochs: int, warmup: float) -> None:
    plan = Study.model_validate({"study": "s", "base": {"optim": {"epochs": epochs, "warmup": warmup}}})
    assert plan.grace() >= 1
    assert plan.grace() >= warmup * epochs + 0.15 * epochs - 1e-9
    assert plan.grace() <= warmup * epochs + 0.15 * epochs + 2


def _on_disk(path: Path, shards: Path, *overrides: str) -> Study:
    small = [
        "base.backbone.name=test_vit",
        f"base.data.shards={shards}",
        "search.space.optim.batch_size={choice: [12, 16]}",
    ]
    return study.load(path, [*small, *overrides])


@pytest.mark.slow("runs whole commands")
def test_a_study_that_fits_its_data_passes(path: Path, shards: Path) -> None:
    precheck.check_search(_on_disk(path, shards), ranks=4)


@pytest.mark.parametrize(
    ("override", "ranks", "message"),
    [
        ("folds.outer=5", 1, "packed with 4 folds, but folds.outer is 5"),
        ("folds.inner=3", 8, "batch_size: 12 images do not divide over 8 ranks"),
        ("search.space.backbone.name={choice: [test_vit, no_such_model]}", 1, "no_such_model"),
        (
            "search.space.engine.micro_batch={choice: [null, 6, 8]}",
            1,
            "micro_batch: 8 does not divide the 12 images of a rank",
        ),
        ("base.data.shards=nowhere", 1, "nowhere"),
        ("folds.inner=5", 1, "5"),
    ],
)
def test_settings_that_the_data_set_refuses_are_found_before_any_run(
    path: Path, shards: Path, override: str, ranks: int, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        precheck.check_search(_on_disk(path, shards, override), ranks)
    assert "\n" not in str(caught.value)


def test_searched_values_that_conflict_are_found_before_any_run(path: Path, shards: Path) -> None:
    apart = (
        "search.space.engine.strategy={choice: [ddp, zero0]}",
        "search.space.engine.compile={choice: [false, true]}",
    )
    for override in apart:
        precheck.check_search(_on_disk(path, shards, override))
    with pytest.raises(
        InputError,
        match=r"strategy=zero0, engine.compile=True do not go together: .*compile: does not work with",
    ):
        precheck.check_search(_on_disk(path, shards, *apart))


def test_settings_that_one_variant_refuses_are_found_too(path: Path, shards: Path) -> None:
    """Weights of three levels, for example. `multilabel` accepts them with any loss. `flat` accepts them only
    if the loss sums over an image's path."""
    weighted = [
        "base.loss.level_weights=[1, 1, 1]",
        "base.loss.kind=conditional",
        "search.space={optim.lr: {choice: [0.1, 1]}}",
    ]
    precheck.check_search(_on_disk(path, shards, *weighted))
    with pytest.raises(InputError, match="3 numbers, but focal of flat has 1 level"):
        precheck.check_search(
            _on_disk(path, shards, *weighted, "search.space.loss.kind={choice: [focal, conditional]}")
        )


def test_only_the_chosen_values_must_fit_the_ranks_of_the_outer_folds(path: Path, shards: Path) -> None:
    plan = _on_disk(path, shards)
    for size, ranks in ((12, 12), (16, 16)):
        specs = plan.fold_specs(
            {variant: {fold: {"optim.batch_size": size} for fold in range(4)} for variant in plan.variants}
        )
        precheck.check_runs(specs, ranks)
    with pytest.raises(InputError, match="16 images do not divide over 12 ranks"):
        precheck.check_runs(specs, 12)


def test_a_base_that_a_variant_refuses_is_named_with_the_variant(path: Path) -> None:
    plan = study.load(path, ["variants=[flat, base]", "base.loss.kind=soft", "search={trials: 0, space: {}}"])
    with pytest.raises(
        InputError, match=r"^loss.kind: soft needs all leaves in one model; base has one per decision"
    ):
        plan.fold_specs({"base": {0: {}}})


def test_the_spec_of_a_run_is_no_study(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("optim: {lr: 1e-3}")
    with pytest.raises(
        InputError,
        match=r"run\.yaml: is the spec of one run, and no study; `leukotree train .*run\.yaml` takes it",
    ):
        study.load(tmp_path / "run.yaml")
