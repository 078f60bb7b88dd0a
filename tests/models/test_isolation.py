"""Which parameters each level's loss trains: exactly those of `reach`, on one rank and on two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from hpc.launching import runs
from hpc.launching.place import Place
from hpc.launching.ranks import in_ranks
from leukotree import seeds
from leukotree.distributed import strategies
from leukotree.distributed.engine import Engine, start
from leukotree.errors import InputError
from leukotree.models import classifier, isolated, isolation
from leukotree.models.classifier import Classifier
from leukotree.models.objective import Objective
from leukotree.models.stages import stages
from leukotree.records import predictions
from leukotree.records.runfolder import read_metrics
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec
from leukotree.taxonomy import Taxonomy
from leukotree.training import checkpoint, plan, run

TREE = Taxonomy.paper()
[STAGE] = stages("multilabel", TREE)
ISOLATIONS = ("shared", "chained", "detached", "branched", "projected")
BACKBONES = ("test_vit", "test_convnext")
RUNTIME = Runtime(device="cpu", threads=1, workers=0, quiet=True)
PAIRED = Taxonomy.from_nested({"all": {"a": ["b", "c", "d"], "e": {"f": ["g", "h"], "i": None}, "j.k": None}})
SKIPPING = TREE.prune(["normal", "reactive", "AML", "APML"])
"""A tree in which leukemia has one child, and so is no decision."""

Table = dict[tuple[int, str], float]


def spec_of(isolated: str, backbone: str = "test_vit", leader: int = 1, kind: str = "focal") -> RunSpec:
    return RunSpec().override(
        {
            "backbone.name": backbone,
            "engine.precision": "fp32",
            "optim.batch_size": 14,
            "loss": {"isolation": isolated, "leader": leader, "surgery": "pcgrad", "kind": kind},
        }
    )


def groups(built: Classifier) -> dict[str, list[torch.nn.Parameter]]:
    """The parameters of each group of `reach`."""
    levels = sorted(set(STAGE.levels.values()))
    return {
        "trunk": list(built.backbone.parameters()),
        **{
            f"branch:{level}": list(branch.parameters())
            for level, branch in zip(levels, built.branches, strict=False)
        },
        **{
            f"head:{head}": list(part.parameters())
            for head, part in zip(STAGE.heads, built.heads, strict=True)
        },
    }


def reached(engine: Engine, isolated: str, backbone: str, kind: str = "focal") -> Table:
    """The largest gradient of each level's loss alone on each group, as the optimiser gets it.

    The first half of the batch has normal cells only: of two ranks, one has no image of the lower levels.
    """
    spec = spec_of(isolated, backbone, leader=2, kind=kind)
    built = classifier.build(spec, STAGE, 48)
    objective = Objective(STAGE, TREE, spec, np.full(len(TREE.leaves), 5))
    trained = strategies.choose(built, spec, engine)
    images = torch.randn(14, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    leaves = torch.tensor([0] * 7 + list(range(7)))
    own = slice(engine.rank * 14 // engine.world, (engine.rank + 1) * 14 // engine.world)
    largest: Table = {}
    trained.train()
    for level in objective.levels:

        def look(*_: object, level: int = level) -> None:
            for name, parameters in groups(built).items():
                largest[level, name] = max(float(parameter.grad.abs().max()) for parameter in parameters)

        hook = trained.optimizer.register_step_pre_hook(look)
        with trained.micro_batch(last=True):
            losses = objective(trained.forward(images[own]), leaves[own], objective.counts(leaves))
            trained.backward(losses * torch.tensor([float(other == level) for other in objective.levels]))
        trained.update(1.0)
        hook.remove()
    return largest


def tables(runtime: Runtime) -> dict[tuple[str, str], list[Table]]:
    """(isolation, backbone) -> the table of each rank."""
    with start(runtime) as engine:
        pairs = [(isolated, backbone) for isolated in ISOLATIONS for backbone in BACKBONES]
        return {pair: engine.gather(reached(engine, *pair)) for pair in pairs}


@pytest.fixture(scope="module")
def gradients() -> dict[int, dict[tuple[str, str], list[Table]]]:
    return {1: tables(RUNTIME), 2: in_ranks(tables, runtime=RUNTIME, ranks=2)}


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("isolated", ISOLATIONS)
@pytest.mark.slow("starts ranks")
def test_zero_means_zero(gradients, isolated: str, backbone: str, ranks: int) -> None:
    wanted = isolation.reach(spec_of(isolated, leader=2).loss, STAGE.levels)
    for table in gradients[ranks][isolated, backbone]:
        assert set(table) == set(wanted)
        assert {pair: gradient != 0 for pair, gradient in table.items()} == wanted


@pytest.mark.parametrize("isolated", ISOLATIONS)
def test_zero_is_zero_of_the_conditional_loss_too(isolated: str) -> None:
    table = reached(Engine(0, 1, torch.device("cpu")), isolated, "test_vit", "conditional")
    wanted = isolation.reach(spec_of(isolated, leader=2).loss, STAGE.levels)
    assert {pair: gradient != 0 for pair, gradient in table.items()} == wanted


@pytest.mark.parametrize("isolated", ISOLATIONS)
def test_the_table_in_full(isolated: str) -> None:
    """In the paper's tree, with its second level as the leader."""
    allowed = {
        pair
        for pair, may in isolation.reach(spec_of(isolated, leader=2).loss, TREE.decision_levels).items()
        if may
    }
    heads = {(1, "head:root"), (2, "head:leukemia"), (3, "head:acute"), (3, "head:chronic")}
    trunk = (
        {(2, "trunk")} if isolated in ("detached", "branched") else {(level, "trunk") for level in (1, 2, 3)}
    )
    branches = {(level, f"branch:{level}") for level in (1, 2, 3)} if isolated == "branched" else set()
    assert allowed == heads | trunk | branches


@pytest.mark.parametrize("tree", [TREE, PAIRED, SKIPPING])
def test_levels_of_the_heads_are_those_of_the_tree(tree: Taxonomy) -> None:
    [stage] = stages("multilabel", tree)
    assert stage.levels == tree.decision_levels
    for part in [*stages("base", tree), *stages("flat", tree)]:
        assert list(part.levels.values()) == [1]


def test_the_nearest_decision_above_may_be_further_up_than_the_parent() -> None:
    assert STAGE.above == {"root": None, "leukemia": "root", "acute": "leukemia", "chronic": "leukemia"}
    [skipping] = stages("multilabel", SKIPPING)
    assert skipping.above == {"root": None, "acute": "root"}


def logits(isolated: str, backbone: str, images: torch.Tensor, **changes: object) -> torch.Tensor:
    spec = spec_of(isolated, backbone).override({f"loss.{key}": value for key, value in changes.items()})
    with torch.no_grad():
        return classifier.build(spec, STAGE, 48).eval()(images)


@pytest.mark.parametrize(
    ("backbone", "blocks"), [("test_vit", 6), ("test_convnext", 2), ("test_resnet", 1), ("test_vit3", 9)]
)
def test_a_backbone_that_is_cut_gives_at_first_what_it_gave_whole(backbone: str, blocks: int) -> None:
    images = torch.randn(3, 3, 48, 48)
    whole = logits("shared", backbone, images)
    for count in {1, blocks}:
        torch.testing.assert_close(
            logits("branched", backbone, images, branch_blocks=count), whole, rtol=0, atol=1e-6
        )


@pytest.mark.parametrize("backbone", ["test_vit", "test_convnext", "test_resnet"])
def test_branches_share_nothing_and_each_has_what_stands_behind_the_cut(backbone: str) -> None:
    whole, cut = (
        classifier.build(spec_of(isolated, backbone), STAGE, 48) for isolated in ("shared", "branched")
    )
    names = {name for name, _ in whole.backbone.named_parameters()}
    trunk, *branches = (
        {name for name, _ in part.named_parameters()} for part in (cut.backbone, *cut.branches)
    )
    assert branches == [names - trunk] * 3
    assert trunk < names
    places = [parameter.data_ptr() for parameter in cut.parameters()]
    assert len(set(places)) == len(places)


def test_a_chained_head_sees_the_probabilities_above_it() -> None:
    built = classifier.build(spec_of("chained"), STAGE, 48).eval()
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        features, joined = built.backbone(images), built(images)
        root = built.heads[0](features)
        leukemia = built.heads[1](torch.cat([features, root.softmax(dim=1)], dim=1))
        lower = [head(torch.cat([features, leukemia.softmax(dim=1)], dim=1)) for head in built.heads[2:]]
        torch.testing.assert_close(joined, torch.cat([root, leukemia, *lower], dim=1))
        built.heads[0].bias[0] += 1.0
        changed = (built(images) != joined).any(dim=0)
    assert changed.tolist() == [True] + 2 * [False] + 7 * [True]  # through the chain, down to the last head


def test_isolations_are_trained_by_their_own_rates() -> None:
    """Branches have the backbone's rate; log variances have one of their own, and no decay."""
    rates = {"optim.lr": 1e-3, "optim.head_lr_multiplier": 10, "loss.variance_lr": 0.02}
    spec = spec_of("branched").override({"loss.weighting": "uncertainty", **rates})
    built = classifier.build(spec, STAGE, 48)
    peaks = {
        id(p): (group["peak"], group["weight_decay"])
        for group in classifier.parameter_groups(built, spec)
        for p in group["params"]
    }
    assert peaks.keys() == {id(parameter) for parameter in built.parameters()}
    assert {
        peaks[id(parameter)][0] for parameter in (*built.backbone.parameters(), *built.branches.parameters())
    } == {1e-3}
    assert {peaks[id(parameter)][0] for parameter in built.heads.parameters()} == {1e-2}
    assert peaks[id(built.log_variance)] == (0.02, 0.0)
    assert built.log_variance.shape == (3,)


def test_a_shared_model_is_a_backbone_and_heads_with_a_seed_each() -> None:
    """Keys and initial bits are those of a model without isolation."""
    spec = spec_of("shared")
    built = classifier.build(spec, STAGE, 48).state_dict()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.integer(spec.seed, "backbone", spec.data.test_fold, 0))
        backbone = timm.create_model("test_vit", num_classes=0, img_size=48)
        heads = torch.nn.ModuleList()
        for name, classes in STAGE.heads.items():
            torch.manual_seed(seeds.integer(spec.seed, f"head/{name}", spec.data.test_fold, 0))
            heads.append(torch.nn.Linear(64, len(classes)))
    plain = {
        f"{part}.{name}": value
        for part, of in (("backbone", backbone), ("heads", heads))
        for name, value in of.state_dict().items()
    }
    assert list(built) == list(plain)
    assert all(torch.equal(value, plain[name]) for name, value in built.items())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"loss.isolation": "detached", "loss.leader": 4},
            r"loss.leader: there is no level 4, .* have 1 to 3",
        ),
        ({"loss.isolation": "branched", "loss.leader": 4}, "loss.leader: there is no level 4"),
        ({"loss.leader": 4}, "loss.leader: there is no level 4"),
        ({"loss.branch_blocks": 7}, "branch_blocks: test_vit has 6 blocks"),
        (
            {"loss.isolation": "branched", "loss.branch_blocks": 7},
            "branch_blocks: test_vit has 6 blocks to branch off, not 7",
        ),
        (
            {"loss.isolation": "branched", "backbone.name": "test_efficientnet"},
            "branched cannot cut test_efficientnet",
        ),
        ({"loss.level_weights": [1, 2]}, "loss.level_weights: 2 numbers"),
    ],
)
def test_what_the_tree_or_the_backbone_cannot_have_is_refused_before_a_run(
    shards: Path, changes: dict, says: str
) -> None:
    spec = spec_of("shared").override({"data.shards": str(shards), **changes})
    with pytest.raises(InputError, match=says) as error:
        plan.check(spec)
    assert "\n" not in str(error.value)


def test_what_can_be_cut_is_taken() -> None:
    for backbone, blocks in (("test_vit", 6), ("test_convnext", 2), ("test_resnet", 1), ("resnet50", 3)):
        spec = spec_of("branched", backbone, leader=3).override({"loss.branch_blocks": blocks})
        isolated.check(spec, STAGE.levels, isolation.blocks)
    assert tuple(family.__name__ for family in isolation.FAMILIES) == isolated.CUT


@pytest.fixture
def run_spec(shards: Path) -> RunSpec:
    small = {"lr": 1e-3, "batch_size": 12, "epochs": 2}
    return spec_of("shared").override({"data.shards": str(shards), "optim": small})


@pytest.mark.parametrize("isolated", ISOLATIONS)
@pytest.mark.slow("trains runs")
def test_each_isolation_runs_from_start_to_predictions(
    run_spec: RunSpec, isolated: str, tmp_path: Path
) -> None:
    spec = run_spec.override({"loss.isolation": isolated, "optim.epochs": 1, "backbone.name": "test_resnet"})
    result = run.run(spec, tmp_path, RUNTIME)
    assert np.isfinite(predictions.read(result.folder)[1]).all()
    for row in read_metrics(result.folder):
        if row["kind"] == "step":
            assert list(row["levels"]) == ["1", "2", "3"]
            assert sum(row["levels"].values()) == pytest.approx(row["loss"])


@pytest.mark.slow("starts ranks")
def test_three_ranks_learn_the_weights_of_the_losses(run_spec: RunSpec, tmp_path: Path) -> None:
    """`rehearse` includes those weights, which the forward pass does not use."""
    spec = run_spec.override({"loss.weighting": "uncertainty", "loss.variance_lr": 0.1, "optim.epochs": 1})
    one, three = (
        runs.run_spec(spec, tmp_path / str(ranks), Place(ranks=ranks), runtime=RUNTIME) for ranks in (1, 3)
    )
    steps = [
        [row["loss"] for row in read_metrics(run.folder) if row["kind"] == "step"] for run in (one, three)
    ]
    np.testing.assert_allclose(steps[1], steps[0], rtol=1e-3)
    latest = checkpoint.load_latest(one.folder / "checkpoints")
    assert latest is not None
    assert (latest[1]["stages"]["tree"]["model"]["log_variance"] != 0).all()


@pytest.mark.parametrize("isolated", ["branched", "projected"])
@pytest.mark.slow("trains runs")
def test_an_isolated_run_that_was_stopped_ends_with_the_same_bits(
    run_spec: RunSpec, isolated: str, tmp_path: Path
) -> None:
    spec = run_spec.override({"loss.isolation": isolated, "backbone.drop_path": 0.2})
    whole = run.run(spec, tmp_path / "whole", RUNTIME)
    stopped = run.lockstep([spec], tmp_path / "stopped", RUNTIME, each_epoch=False)
    next(stopped)
    stopped.close()
    again = run.run(spec, tmp_path / "stopped", RUNTIME)
    steps = [[row for row in read_metrics(run.folder) if row["kind"] == "step"] for run in (whole, again)]
    assert steps[0] == steps[1]
    assert (again.folder / "predictions.parquet").read_bytes() == (
        whole.folder / "predictions.parquet"
    ).read_bytes()
