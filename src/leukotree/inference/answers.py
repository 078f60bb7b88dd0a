"""The tables of a prediction: a row for each image, and a row for each patient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from leukotree.data.patients import identities
from leukotree.evaluation import decide, metrics
from leukotree.inference.images import Images
from leukotree.inference.members import Members
from leukotree.inference.predict import Predicted
from leukotree.taxonomy import Taxonomy

P, LOGP = "p:", "logp:"
"""Prefixes of the columns of P(node), calibrated where `calibrated` says so, and of the raw log p(child |
parent), as in the predictions of a run."""
PREDICTED, PATH, STOP, SET = "predicted", "path", "stop", "set"
"""The leaf by the study's rule. Its path, with the P of each node. The node at which the descent stops. The
leaves of the prediction set."""
LOW_SCORE, CALIBRATED, RUNS, TRAINED = "low_score", "calibrated", "runs", "trained"
"""Whether no leaf fits, whether `p:` is calibrated, how many runs predicted, and whether they trained on the
image or its patient."""
MEASURED = "measured"
"""Whether the runs were scored on patients that they had not seen."""
VOTE = "vote"
"""The leaf that most images of a patient have."""
ARROW, BAR = " > ", "|"
"""Separators of nodes in PATH and of leaves in SET."""


class Answers(NamedTuple):
    """What a command answers."""

    images: pd.DataFrame
    """A row for each image, in their order."""
    patients: pd.DataFrame | None
    """A row for each patient, sorted. None without a patient's id."""
    about: dict[str, Any]
    """What made it (`model`, `rule`, `runs`), `broken` images that were left out, and `notes`: what a reader
    should know."""


def answers(
    images: Images,
    predicted: Predicted,
    members: Members,
    abstain: float | None = None,
    notes: Sequence[str] = (),
) -> Answers:
    """The tables.

    Args:
        abstain: the smallest P(node) with which a descent enters a node; None has no STOP.
        notes: more of them.
    """
    tree = members.taxonomy
    leaf = decide.leaves(predicted.logp, tree, members.rule)
    given = images.table
    known = [name for name in ("patient", "source", "leaf") if (given[name] != "").any()]
    described = [
        name for name in given if name not in ("image", "key", "patient", "source", "leaf", "sha256")
    ]
    frame = given[["image", *known, *described]].assign(
        **_decided(leaf, predicted.calibrated, tree, abstain),
        **_sets(predicted, tree),
        **{CALIBRATED: predicted.scaled, RUNS: predicted.runs},
        **{TRAINED: _trained(predicted)},
        **{MEASURED: members.measured},
    )
    columns = [
        _nodes(predicted.calibrated, tree),
        pd.DataFrame(predicted.logp, columns=[f"{LOGP}{edge}" for edge in tree.edges]),
    ]
    table = pd.concat([frame, *columns], axis=1)
    about = {
        "model": members.name,
        "measured": members.measured,
        "rule": members.rule,
        "runs": [str(run.folder) for run in members.runs],
        "images": len(table),
        "broken": [{"image": name, "reason": reason} for name, reason in images.broken],
        "notes": [*members.notes, *images.notes, *notes, *_notes(predicted)],
    }
    return Answers(table, _patients(images, predicted, members, abstain), about)


def _trained(predicted: Predicted) -> pd.Series:
    return _or_unknown(pd.Series(predicted.trained), pd.Series(predicted.unsure))


def _or_unknown(trained: pd.Series, unsure: pd.Series) -> pd.Series:
    """True, False, or no value where neither is known."""
    return trained.astype("boolean").mask(unsure & ~trained).reset_index(drop=True)


def _notes(predicted: Predicted) -> list[str]:
    """What the predictions themselves say."""
    notes = []
    if (count := int((~predicted.scaled).sum())) == len(predicted.scaled):
        notes.append("probabilities are not calibrated: there are no inner folds to fit temperatures on")
    elif count:
        notes.append(f"probabilities of {count} images are not calibrated: a run has no inner folds")
    elif (predicted.runs > 1).any():
        notes.append(
            "each run is calibrated by its own inner folds; the mean of several is rather too cautious"
        )
    if predicted.sets is not None and (predicted.runs > 1).any():
        notes.append(
            "a set of several runs has the leaves of most of their sets: its miss rate is at most twice the "
            "one that the study asks for"
        )
    if predicted.trained.any():
        count = int(predicted.trained.sum())
        notes.append(f"{count} images, or their patients, were trained on (column {TRAINED})")
    return notes


def _decided(
    leaf: np.ndarray, leaf_logp: np.ndarray, tree: Taxonomy, abstain: float | None
) -> dict[str, Any]:
    """PREDICTED, PATH and STOP of (N,) decided leaves, with (N, L) log p(leaf)."""
    logp = decide.edge_logp(leaf_logp, tree)
    nodes, probability = decide.path_to(leaf, logp, tree)
    columns: dict[str, Any] = {
        PREDICTED: np.asarray(tree.leaves, dtype=object)[leaf],
        PATH: [_path(*one, tree) for one in zip(nodes, probability, strict=True)],
    }
    if abstain is not None:
        names = np.asarray(tree.nodes, dtype=object)
        columns[STOP] = names[decide.stop(logp, tree, abstain, leaf)]
    return columns


def _path(nodes: np.ndarray, probability: np.ndarray, tree: Taxonomy) -> str:
    """The nodes below the root, each with its P: "leukemia 0.98 > acute 0.90"."""
    different = nodes[1:] != nodes[:-1]  # a leaf is repeated at greater depths
    pairs = zip(nodes[1:][different], probability[1:][different], strict=True)
    return ARROW.join(f"{tree.nodes[node]} {p:.3f}" for node, p in pairs)


def _sets(predicted: Predicted, tree: Taxonomy) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    if predicted.sets is not None:
        columns[SET] = [BAR.join(np.asarray(tree.leaves)[inside]) for inside in predicted.sets]
    if predicted.low_score is not None:
        columns[LOW_SCORE] = predicted.low_score
    return columns


def _nodes(leaf_logp: np.ndarray, tree: Taxonomy) -> pd.DataFrame:
    """The columns P of all nodes but the root."""
    leaf_p = np.exp(leaf_logp)
    return pd.DataFrame(leaf_p @ tree.leaves_below.T.astype(np.float64), columns=_columns(tree.edges))


def _columns(edges: Sequence[str]) -> list[str]:
    return [f"{P}{edge}" for edge in edges]


def _patients(
    images: Images, predicted: Predicted, members: Members, abstain: float | None
) -> pd.DataFrame | None:
    """The mean probability of a patient's images decides, as in the report's clinical scores. VOTE has the
    most frequent leaf of its images, as in the report's main table."""
    table, tree = images.table, members.taxonomy
    persons = identities.persons(table, images.across_sources)
    if not (persons != "").any():
        return None
    one_leaf = np.zeros(len(table), dtype=np.int64)  # all images of a patient are one group
    mean, vote = (
        metrics.by_patient(persons.tolist(), one_leaf, predicted.logp, tree, rule, members.rule)
        for rule in ("mean_probability", "mode")
    )
    edges = decide.edge_logp(predicted.calibrated, tree)
    scaled = metrics.by_patient(persons.tolist(), one_leaf, edges, tree, "mean_probability")
    leaf_logp = decide.leaf_logp(scaled.logp, tree)
    of_person = table.groupby(persons.to_numpy())
    first = of_person[["patient", "source"]].first().loc[mean.patient].reset_index(drop=True)
    all_scaled = pd.Series(predicted.scaled).groupby(persons.to_numpy()).all().loc[mean.patient]
    of_images = pd.DataFrame({"trained": predicted.trained, "unsure": predicted.unsure})
    of_patients = of_images.groupby(persons.to_numpy()).any().loc[mean.patient]
    frame = first.assign(
        images=mean.images,
        **_decided(mean.predicted, leaf_logp, tree, abstain),
        **{
            VOTE: np.asarray(tree.leaves, dtype=object)[vote.predicted],
            CALIBRATED: all_scaled.to_numpy(),
            TRAINED: _or_unknown(of_patients["trained"], of_patients["unsure"]),
            MEASURED: members.measured,
        },
    )
    return pd.concat([frame, _nodes(leaf_logp, tree)], axis=1)
