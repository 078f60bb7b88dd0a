"""From measured seconds to what training waits for, and which setting changes it. Pure: numbers in, words
out."""

from __future__ import annotations

from dataclasses import dataclass

NOTABLE = 0.1
"""A loss of less than this share of the time is not worth a setting."""
EVEN = 1.25
"""Two speeds that differ by less than this factor keep pace."""


@dataclass(frozen=True)
class Speeds:
    """Seconds, as measured; None where that was left out."""

    step: float | None
    """A training step with everything."""
    bare: float | None
    """The same step of a bare loop on one rank, without loading and without an exchange."""
    loader: float | None = None
    """Loading a global batch, when nothing else is done."""
    cached: float | None = None
    """The same from the decoded cache."""
    exchange: float | None = None
    """Adding up the gradients of the ranks."""
    held: float | None = None
    """A save, while the loop waits."""
    written: float | None = None
    """A save, beside the loop."""
    trial: float | None = None
    """A trial beyond its training."""


@dataclass(frozen=True)
class Setup:
    """What was measured, as far as the advice depends on it."""

    cores: int
    gpus: int
    device: str
    """`cpu` or `cuda`."""
    ranks: int
    workers: int
    """Decoding threads per rank."""
    threads: int
    """Threads of torch per rank; on a GPU they do not matter."""
    cache: bool
    """Whether the step had a decoded cache."""
    batch_size: int
    precision: str
    compile: bool
    steps: int
    """Of an epoch."""
    epochs: int


def shares(speeds: Speeds, setup: Setup) -> dict[str, float]:
    """Where the time of a run goes, as shares of it; {} if the step was not measured.

    `compute` is the bare loop. What the step takes beyond it is first waiting for data as far as the loader
    is slower than
    the bare loop, then the exchange of gradients, and `loop` is the rest. A save counts with what holds up
    the loop, and with what is still unwritten when the next epoch ends.
    """
    if speeds.step is None or speeds.bare is None:
        return {}
    lost = max(0.0, speeds.step - speeds.bare)
    data = min(lost, max(0.0, (speeds.loader or 0.0) - speeds.bare))
    exchange = min(lost - data, speeds.exchange or 0.0)
    save = (speeds.held or 0.0) + max(0.0, (speeds.written or 0.0) - setup.steps * speeds.step)
    parts = {
        "compute": speeds.step - lost,
        "loader": data,
        "communication": exchange,
        "loop": lost - data - exchange,
        "checkpoint": save / setup.steps,
        "trials": (speeds.trial or 0.0) / (setup.steps * setup.epochs),
    }
    total = sum(parts.values())
    return {name: seconds / total for name, seconds in parts.items()}


def advice(speeds: Speeds, setup: Setup) -> tuple[str | None, list[str]]:
    """The bottleneck, a key of `shares` or "balanced", and one or two lines on what to change. None and no
    line if the step was not measured.

    Of what takes time beyond the bare loop, the largest share is the bottleneck if it is NOTABLE; otherwise
    the computing is, unless the loader is about as slow.
    """
    found = shares(speeds, setup)
    if not found:
        return None, []
    compute = found.pop("compute")
    losses = [name for name in sorted(found, key=lambda name: -found[name]) if found[name] >= NOTABLE]
    if losses:
        return losses[0], [
            f"{found[name]:.0%} of the time: {_ADVICE[name](speeds, setup)}" for name in losses[:2]
        ]
    bare, loader = speeds.bare or 0.0, speeds.loader or 0.0
    name = "balanced" if bare / EVEN < loader < bare * EVEN else "compute"
    return name, [f"{compute:.0%} of the time: {_ADVICE[name](speeds, setup)}"]


def _cache_gain(speeds: Speeds, setup: Setup) -> float | None:
    """How many times as fast the loader is from the decoded cache, where that is much and not in use."""
    if setup.cache or not speeds.cached or not speeds.loader or speeds.loader < EVEN * speeds.cached:
        return None
    return speeds.loader / speeds.cached


def _loader(speeds: Speeds, setup: Setup) -> str:
    waiting = "the model waits for images"
    if faster := _cache_gain(speeds, setup):
        return f"{waiting}; decoded ones come {faster:.2g} times as fast: --cache DIR, on the node's own disk or in its memory"
    if (spare := setup.cores // setup.ranks - 1) > max(1, setup.workers):
        return f"{waiting}; cores are idle: --workers {spare}"
    return f"{waiting}; ask for more cores per rank, or pack smaller images (the option --size of leukotree pack)"


def _communication(speeds: Speeds, setup: Setup) -> str:
    return (
        f"the ranks wait for each other's gradients; exchange them less often: optim.batch_size={2 * setup.batch_size}, "
        f"or give a run fewer --ranks and do several runs at once"
    )


def _loop(speeds: Speeds, setup: Setup) -> str:
    larger = f"optim.batch_size={2 * setup.batch_size}"
    if (
        setup.device == "cpu"
        and setup.threads > 1
        and setup.ranks * (setup.threads + setup.workers) > setup.cores
    ):
        fewer = max(1, setup.cores // setup.ranks - max(1, setup.workers))
        return f"decoding and torch have more threads than there are cores, and wait for each other: --threads {fewer}"
    if setup.device == "cpu":
        spared = "; --cache DIR spares decoding" if _cache_gain(speeds, setup) else ""
        return f"loading, augmentation and bookkeeping beside the model; {larger} makes them rarer{spared}"
    compiled = "" if setup.compile else ", or engine.compile=true"
    return f"the host does not keep the GPU busy; give it more at a time: {larger}{compiled}"


def _checkpoint(speeds: Speeds, setup: Setup) -> str:
    return "epochs are short beside a save; put results/runs on a faster disk"


def _trials(speeds: Speeds, setup: Setup) -> str:
    shared = ", or let several share a GPU (sweep --gpus-per-trial 0.25)" if setup.gpus else ""
    return f"trials are short beside what starting one costs; give them more epochs{shared}"


def _compute(speeds: Speeds, setup: Setup) -> str:
    if setup.device == "cpu":
        return "the model's own arithmetic; a GPU, a smaller backbone or smaller images make it less"
    settings = [
        *(["engine.precision=bf16"] if setup.precision == "fp32" else []),
        *([] if setup.compile else ["engine.compile=true"]),
        *([f"--ranks {setup.gpus}"] if setup.gpus > setup.ranks else []),
    ]
    return f"the model's own arithmetic; try {', '.join(settings) or 'a larger optim.batch_size, or a smaller backbone'}"


def _balanced(speeds: Speeds, setup: Setup) -> str:
    return "the model's own arithmetic, and the loader just keeps pace; a faster model would need --cache DIR or more --workers"


_ADVICE = {
    "loader": _loader,
    "communication": _communication,
    "loop": _loop,
    "checkpoint": _checkpoint,
    "trials": _trials,
    "compute": _compute,
    "balanced": _balanced,
}
