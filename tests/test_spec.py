"""RunSpec: refused values, overrides, and the hash."""

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leukotree import config, spec, yamlfile
from leukotree.errors import InputError
from leukotree.spec import RunSpec


def test_a_file_and_overrides_make_a_spec(tmp_path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("variant: flat\noptim: {lr: 1e-6, batch_size: 16}\n")
    made = spec.load(file, ["optim.batch_size=8", "data.inner={folds: 2, fold: 1}", "backbone.weights=null"])
    assert made.variant == "flat"
    assert made.optim.lr == 1e-6  # plain YAML reads 1e-6 as a text
    assert made.optim.batch_size == 8
    assert made.data.inner is not None
    assert made.data.inner.fold == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("optim: {learning_rate: 1}", "unknown key 'optim.learning_rate'"),
        ("optim: {epoch: 1}", "did you mean 'optim.epochs'"),
        ("varient: flat", "did you mean 'variant'"),
        ("base: {optim: {epochs: 5}}", "unknown key 'base', did you mean 'optim.epochs'"),
        ("epochs: 5", "unknown key 'epochs', did you mean 'optim.epochs'"),
        ("optm: {epochs: 5}", "unknown key 'optm', did you mean 'optim'"),
        ("data: {inner: {fods: 2}}", "unknown key 'data.inner.fods', did you mean 'data.inner.folds'"),
        ("study: s", "run.yaml: is a study, not the spec of a run; use `leukotree sweep "),
        ("variant: tree", "flat.*got 'tree'"),
        ("optim: {lr: 0}", "optim.lr"),
        ("optim: {lr: .nan}", "optim.lr"),
        ("optim: {lr: .inf}", "optim.lr"),
        ("optim: {steps: 0}", "optim.steps"),
        ("optim: {epochs: 8, steps: 7}", "steps: 7 steps cannot be divided into 8 epochs"),
        ("variant: ensemble\nloss: {isolation: branched}", "loss.isolation: has no effect in ensemble"),
        ("loss: {tau: 2}", "loss.tau"),
        ("data: {inner: {folds: 2, fold: 2}}", "does not exist"),
        ("data: {all_folds: true, test_fold: 1}", "all_folds: leaves no fold to score"),
        ("data: {all_folds: true, inner: {folds: 2, fold: 1}}", "all_folds: leaves no fold to score"),
        ("augment: {crop_scale: [1.0, 0.5]}", "crop_scale"),
        ("- flat", "expected a mapping"),
        ("seed: 2020-01-01", "may only have texts, numbers"),
        ("seed: [", "not valid YAML"),
    ],
)
def test_bad_specs_are_refused_in_one_line_that_names_file_and_key(tmp_path, text: str, says: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=says) as error:
        spec.load(file)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_bad_override_are_named(tmp_path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read"):
        spec.load(tmp_path / "none.yaml")
    file = tmp_path / "run.yaml"
    file.write_text("")
    with pytest.raises(InputError, match="expected key=value"):
        spec.load(file, ["optim.lr"])
    file.write_text("seed: 1")
    with pytest.raises(InputError, match="holds a value"):
        spec.load(file, ["seed.lr=1"])


def test_the_hash_follows_the_content_not_the_way_it_was_written(tmp_path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("optim: {batch_size: 32}\nvariant: multilabel\n")
    assert spec.load(file).hash == RunSpec().hash  # these are the defaults
    assert spec.load(file, ["seed=1"]).hash != RunSpec().hash


@given(st.floats(1e-7, 1), st.integers(1, 512), st.integers(0, 9), st.sampled_from(spec.TRAINED))
def test_dump_and_load_give_the_same_spec(lr: float, batch: int, fold: int, variant: str) -> None:
    made = RunSpec().override(
        {"optim.lr": lr, "optim.batch_size": batch, "data.test_fold": fold, "variant": variant}
    )
    again = config.parse(RunSpec, yamlfile.parse(made.dump()), "text")
    assert again == made
    assert again.hash == made.hash


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
keys = st.sampled_from([*RunSpec.model_fields, "lr", "name", "folds", "x"])
anything = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4)
)


@given(anything)
def test_whatever_a_file_holds_the_answer_is_a_spec_or_one_line(value: object) -> None:
    try:
        answer = config.parse(RunSpec, value, "file").dump()
    except InputError as refused:
        answer = f"refused: {refused}"
    assert answer.startswith("variant: ") or answer.count("\n") == 0


def test_keys_that_need_another_key_name_values_that_it_accepts() -> None:
    for key, (other, values) in spec.NEEDS.items():
        assert spec.default_of(key) == spec.value_of(RunSpec(), key)
        assert all(spec.value_of(RunSpec().override({other: value}), other) == value for value in values)


def test_keys_without_effect_follow_the_variant_and_the_other_settings() -> None:
    base = RunSpec()
    assert "loss.gamma" not in spec.without_effect("multilabel", base, {})
    assert spec.without_effect("multilabel", base, {"loss.kind": "conditional"})["loss.gamma"] == 2.0
    assert "loss.leader" not in spec.without_effect("multilabel", base, {"loss.isolation": "detached"})
    assert "loss.leader" in spec.without_effect("flat", base, {"loss.isolation": "detached"})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"backbone.last": 2}, "backbone.last: has no effect with backbone.train all; leave it out, or set"),
        ({"backbone.lora.rank": 4}, "backbone.lora.rank: has no effect with backbone.train all"),
        ({"backbone.train": "head", "backbone.drop_path": 0.1}, "backbone.drop_path: has no effect with"),
        ({"backbone.train": "head", "optim.layer_decay": 0.9}, "optim.layer_decay: has no effect with"),
        ({"optim.layer_decay": 0}, "optim.layer_decay"),
        ({"backbone.train": "lora", "backbone.lora.targets": "head"}, "backbone.lora.targets"),
        *(
            ({"backbone.train": "head", "loss.isolation": isolation}, f"loss.isolation: {isolation} isolates")
            for isolation in ("detached", "branched", "projected")
        ),
        (
            {"backbone.train": "last", "loss.isolation": "branched", "loss.branch_blocks": 2},
            "backbone.last: 1 leaves blocks of the branches frozen; use at least loss.branch_blocks, 2",
        ),
    ],
)
def test_what_does_not_train_has_no_settings(changes: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=f"^override: {says}") as error:
        RunSpec().override(changes)
    assert "\n" not in str(error.value)


def test_class_weights_have_an_effect_in_every_kind_and_means_where_a_decision_is_not_for_all_images() -> (
    None
):
    for kind in ("focal", "conditional", "soft", "marginal"):
        made = RunSpec().override({"loss.kind": kind})
        idle = {variant: spec.without_effect(variant, made, {}) for variant in spec.TRAINED}
        assert not any("loss.tau" in keys for keys in idle.values())
        without = {variant for variant, keys in idle.items() if "loss.normalisation" in keys}
        assert without == ({"flat", "ensemble", "base"} if kind == "focal" else {"base"})
    with pytest.raises(InputError, match=r"loss\.normalisation: has no effect in base; leave it out"):
        RunSpec().override({"variant": "base", "loss.normalisation": "all"})


def test_log_variances_have_a_rate_only_where_they_are_learned() -> None:
    assert spec.without_effect("multilabel", RunSpec(), {})["loss.variance_lr"] == 0.01
    assert "loss.variance_lr" not in spec.without_effect(
        "multilabel", RunSpec(), {"loss.weighting": "uncertainty"}
    )
    with pytest.raises(InputError, match=r"loss\.variance_lr"):
        RunSpec().override({"loss.variance_lr": 0})


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "multilabel-44136fa355b3"),
        ({"variant": "flat", "loss.kind": "soft"}, "flat-bec8f84b751d"),
        ({"loss.tau": 0, "loss.weighting": "uncertainty"}, "multilabel-1bd5e66a25c3"),
    ],
)
def test_later_keys_have_renamed_no_run(changes: dict[str, object], name: str) -> None:
    """The hash is of the fields that differ from their defaults."""
    made = RunSpec().override(changes)
    fields = made.model_dump(mode="json", exclude_defaults=True)
    assert not {"normalisation", "variance_lr"} & set(fields.get("loss", {}))
    assert not {"backbone", "optim"} & set(fields)
    assert "all_folds" not in fields.get("data", {})
    assert made.run_name == name
    assert made.override({"data.all_folds": True}).run_name != name


def test_the_tree_is_a_choice_of_the_run() -> None:
    for text in ("tree: {permuted: 3}", "tree: permuted:3"):
        assert config.parse(RunSpec, yamlfile.parse(text), "file").tree == "permuted:3"
    assert RunSpec().override({"tree": "data"}) == RunSpec()
    assert config.merge({}, config.parse_overrides(["tree.permuted=3"])) == {"tree": {"permuted": 3}}
    names = {RunSpec().override({"tree": tree}).run_name for tree in (None, "paper", "a.yaml", "permuted:1")}
    assert len(names) == 4
    with pytest.raises(InputError, match=r"^override: tree: expected permuted:SEED .*\(got 'permuted:x'\)$"):
        RunSpec().override({"tree": "permuted:x"})


def test_the_tree_has_no_effect_in_a_softmax_over_the_leaves() -> None:
    losses = {
        True: [
            {"kind": "soft"},
            {"kind": "marginal"},
            {"kind": "conditional", "tau": 0},
            {"kind": "conditional", "normalisation": "all"},
            {"kind": "conditional", "tau": 0, "normalisation": "all", "weighting": "hxe"},
        ],
        False: [{"kind": "focal"}, {"kind": "conditional", "tau": 0, "normalisation": "all"}],
    }
    for effect, kinds in losses.items():
        for fields in kinds:
            loss = spec.LossSpec(**fields)
            changes = {f"loss.{key}": value for key, value in fields.items()}
            assert spec.tree_has_effect("flat", loss) == effect
            assert spec.tree_has_effect("flat", spec.LossSpec(), changes) == effect
            assert spec.tree_has_effect("multilabel", loss)
            assert ("tree" in spec.without_effect("flat", RunSpec(loss=loss), {})) != effect
            run = RunSpec().override({"variant": "flat", **changes})
            if effect:
                assert run.override({"tree": "paper"}).tree == "paper"
            else:
                with pytest.raises(InputError, match=r"tree: has no effect in flat with loss\.kind"):
                    run.override({"tree": "paper"})


def test_the_tree_decides_how_many_members_an_ensemble_has() -> None:
    """So it has an effect there with every loss, and in `flat` only with one that has the tree in it."""
    assert spec.tree_has_effect("ensemble", RunSpec().loss)
    assert "tree" not in spec.without_effect("ensemble", RunSpec(), {})
    assert "tree" in spec.without_effect("flat", RunSpec(), {})


def test_a_copy_with_another_place_is_the_spec_of_that_place() -> None:
    spec = RunSpec(variant="flat").override({"loss.gamma": 1.5, "augment.crop_scale": [0.5, 1.0]})
    before = spec.run_name
    [other] = spec.placed([(1, 2, 3)])
    wanted = spec.override({"seed": 3, "data.test_fold": 2, "data.repeat": 1})
    assert other == wanted
    assert other.run_name == wanted.run_name != before
    assert spec.run_name == before
    assert spec.model_copy(update={"seed": 9}).run_name != before, "a copy has a hash of its own"
    assert pickle.loads(pickle.dumps(other)).run_name == other.run_name


CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "data.shards": st.just("data/é"),
        "data.window": st.just(3),
        "data.test_fold": st.integers(0, 2),
        "seed": st.integers(0, 2),
        "loss.tau": st.sampled_from([0, 0.1]),
        "loss.gamma": st.just(2.0),
        "optim.clip": st.just(1),
        "augment.crop_scale": st.just([0.5, 1.0]),
    },
)


@given(CHANGES, st.lists(st.tuples(*[st.integers(0, 2)] * 3), max_size=4))
def test_a_run_at_many_places_has_the_names_of_the_specs_of_these_places(
    changes: dict[str, Any], places: list[tuple[int, int, int]]
) -> None:
    order = {"data.order": "window"} if "data.window" in changes else {}
    base = RunSpec().override({**changes, **order})
    wanted = [
        base.override({"data.repeat": repeat, "data.test_fold": fold, "seed": seed})
        for repeat, fold, seed in places
    ]
    placed = list(base.placed(places))
    assert [spec.run_name for spec in placed] == [spec.run_name for spec in wanted]
    assert placed == wanted
