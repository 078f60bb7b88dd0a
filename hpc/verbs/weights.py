"""Pretrained weights: `weights`."""

from __future__ import annotations

import json
import sys
from argparse import Namespace

from hpc import options
from leukotree.progress import step


def define_weights(verbs: options.Verbs) -> None:
    verb = options.verb(
        verbs,
        "weights",
        "list, fetch or check the pretrained weights that a study needs; jobs use them without internet",
        "leukotree weights fetch sweeps/paper.yaml",
        run_weights,
    )
    verb.add_argument(
        "action",
        choices=["list", "fetch", "check"],
        help="list those that are here; fetch the others, into $LEUKOTREE_WEIGHTS or the cache of the hub; "
        "check that they are tensors, and fit the models",
    )
    verb.add_argument(
        "study",
        metavar="STUDY|SPEC|NAME",
        help="the file of a study or spec, or a backbone's name, as hf-hub:OWNER/MODEL",
    )
    verb.add_argument(
        "overrides", metavar="key=value", nargs="*", help="change a field, as in base.backbone.weights=hub"
    )
    verb.add_argument("--json", action="store_true", help="print JSON")


def run_weights(arguments: Namespace) -> int:
    step("importing what reads models")
    from hpc.doctor import pretrained

    wanted = pretrained.specs(arguments.study, arguments.overrides)
    does = {"list": pretrained.listed, "fetch": pretrained.fetched, "check": pretrained.checked}
    rows = does[arguments.action](wanted)
    lines = pretrained.table(rows)
    print(json.dumps([row.as_dict() for row in rows]) if arguments.json else "\n".join(lines))
    bad = [row for row in rows if row.problem]
    if not bad or arguments.action == "list":
        return 0
    print(f"leukotree weights: {bad[0].problem}", file=sys.stderr)
    return 1
