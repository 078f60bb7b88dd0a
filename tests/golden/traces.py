"""Loss traces: 20 steps of each variant on each kind of backbone, in fp32 on the CPU.

`python tests/golden/traces.py OUT.json` writes them. A change that only moves code changes no bit: the files
of two commits on one machine must be equal (`cmp`). `tests/golden/test_traces.py` compares the stored file to
1e-4, on any machine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from leukotree.runtime import Runtime

STORED = Path(__file__).with_name("traces.json")
STEPS = 20
VARIANTS = ("flat", "base", "multilabel", "ensemble")
BACKBONES = ("test_vit", "test_resnet", "test_convnext")

Trace = dict[str, list[float]]
"""Stage -> losses of its first `STEPS` steps."""


def draw(folder: Path) -> Path:
    """84 phantom images of 48x48 pixels, packed in four folds."""
    from leukotree.data import phantom
    from leukotree.data.pack import pack

    manifest = phantom.write(folder / "images", patients=28, per_patient=3, size=64, seed=0)
    pack(manifest, folder / "shards", folds=4, size=48)
    return folder / "shards"


def trace(shards: Path, runs: Path, variant: str, backbone: str) -> Trace:
    """Train one run long enough that each of its stages has `STEPS` steps."""
    from leukotree.spec import RunSpec
    from leukotree.training.run import run

    fields = {
        "variant": variant,
        "data.shards": str(shards),
        "backbone.name": backbone,
        "optim.batch_size": 7,
        "optim.epochs": STEPS if variant == "base" else 3,
        "optim.steps": STEPS if variant == "ensemble" else None,
        "engine.precision": "fp32",
    }
    result = run(RunSpec().override(fields), runs, Runtime(device="cpu", quiet=True))
    losses: Trace = {}
    for line in (result.folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["kind"] == "step":
            losses.setdefault(row["stage"], []).append(row["loss"])
    return {stage: values[:STEPS] for stage, values in losses.items()}


def traces(folder: Path) -> dict[str, Trace]:
    """All of them, by "variant/backbone"; the data and the runs go into `folder`."""
    shards = draw(folder)
    names = [(variant, backbone) for variant in VARIANTS for backbone in BACKBONES]
    return {
        f"{variant}/{backbone}": trace(shards, folder / "runs", variant, backbone)
        for variant, backbone in names
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT.json", help="the file to write")
    out = parser.parse_args().out
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        text = json.dumps(traces(Path(folder)), indent=1)
    out.write_text(text + "\n")


if __name__ == "__main__":
    main()
