"""The bottleneck of training by measured seconds, and advice which setting to change. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

NOTABLE = 0.1
"""A smaller share of the time needs no advice."""
EVEN = 1.25
"""Two speeds that differ by less than this factor count as equal."""


@dataclass(frozen=True)
class Speeds:
    """Measured seconds. None where nothing was measured."""

    step: float | None
    """A training step with everything."""
    bare: float | None
    """The same step of a bare loop on one rank, without loading and without exchange of gradients."""
    loader: float | None = None
    """Loading a global batch, with nothing else running."""
    cached: float | None = None
    """The same from the decoded cache."""
    exchange: float | None = None
    """Summing the gradients of the ranks."""
    held: float | None = None
    """A save, while the loop waits."""
    written: float | None = None
    """A save, while the loop goes on."""
    trial: float | None = None
    """A trial beyond its training."""


@dataclass(frozen=True)
class Setup:
    """The settings of the measurement on which the advice depends."""

    cores: int
    gpus: int
    device: str
    """`cpu` or `cuda`."""
    ranks: int
    workers: int
    """Decoding threads per rank."""
    threads: int
    """Threads of torch per rank. They do not matter on a GPU."""
    cache: bool
    """Whether the step used a decoded cache."""
    batch_size: int
    precision: str
    compile: bool
    steps: int
    """Steps of an epoch."""
    epochs: int


def shares(speeds: Speeds, setup: Setup) -> dict[str, float]:
    """The parts of a run's time, as shares of it; {} if the step was not measured.

    `compute` is the bare loop. The rest of the step is first waiting for data, as far as the loader is slower
    than the bare loop, then the exchange of gradients; what remains is `loop`. A save counts with the time
    that it holds up the loop, and with what is not yet written when the next epoch ends.
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
    """(bottleneck, one or two lines of advice). The bottleneck is a key of `shares`, or "balanced". None and
    no line if the step was not measured.

    The bottleneck is the largest share beyond the bare loop if it is NOTABLE. Otherwise it is the computing,
    unless the loader is about as slow.
    """
    parts = shares(speeds, setup)
    if not parts:
        return None, []
    compute = parts.pop("compute")
    losses = [name for name in sorted(parts, key=lambda name: -parts[name]) if parts[name] >= NOTABLE]
    if losses:
        lines = [f"{parts[name]:.0%} of the time: {_ADVICE[name](speeds, setup)}" for name in losses[:2]]
        return losses[0], lines
    bare, loader = speeds.bare or 0.0, speeds.loader or 0.0
    name = "balanced" if bare / EVEN < loader < bare * EVEN else "compute"
    return name, [f"{compute:.0%} of the time: {_ADVICE[name](speeds, setup)}"]


def _cache_gain(speeds: Speeds, setup: Setup) -> float | None:
    """How many times as fast the loader is from the decoded cache. None if that is little, or the cache is in
    use."""
    if setup.cache or not speeds.cached or not speeds.loader or speeds.loader < EVEN * speeds.cached:
        return None
    return speeds.loader / speeds.cached


def _loader(speeds: Speeds, setup: Setup) -> str:
    waiting = "the model waits for images"
    if faster := _cache_gain(speeds, setup):
        return (
            f"{waiting}; from a decoded cache they load {faster:.2g} times as fast: --cache DIR, on the "
            "node's own disk or in its memory"
        )
    if (spare := setup.cores // setup.ranks - 1) > max(1, setup.workers):
        return f"{waiting}; cores are idle: --workers {spare}"
    return f"{waiting}; ask for more cores per rank, or pack smaller images (leukotree pack --size)"


def _communication(speeds: Speeds, setup: Setup) -> str:
    return (
        "the ranks wait for each other's gradients; exchange them less often with "
        f"optim.batch_size={2 * setup.batch_size}, or give a run fewer --ranks and do several runs at once"
    )


def _loop(speeds: Speeds, setup: Setup) -> str:
    larger = f"optim.batch_size={2 * setup.batch_size}"
    threads = setup.ranks * (setup.threads + setup.workers)
    if setup.device == "cpu" and setup.threads > 1 and threads > setup.cores:
        fewer = max(1, setup.cores // setup.ranks - max(1, setup.workers))
        return f"decoding and torch have more threads than there are cores; use --threads {fewer}"
    if setup.device == "cpu":
        saved = "; --cache DIR saves the decoding" if _cache_gain(speeds, setup) else ""
        return f"loading, augmentation and the loop take time beside the model; try {larger}{saved}"
    compiled = "" if setup.compile else ", or engine.compile=true"
    return f"the host does not keep the GPU busy; try larger steps: {larger}{compiled}"


def _checkpoint(speeds: Speeds, setup: Setup) -> str:
    return "epochs are short compared with a save; put results/runs on a faster disk"


def _trials(speeds: Speeds, setup: Setup) -> str:
    shared = ", or let several share a GPU (sweep --gpus-per-trial 0.25)" if setup.gpus else ""
    return f"trials are short compared with their start; give them more epochs{shared}"


def _compute(speeds: Speeds, setup: Setup) -> str:
    if setup.device == "cpu":
        return "computing the model; a GPU, a smaller backbone or smaller images are faster"
    settings = [
        *(["engine.precision=bf16"] if setup.precision == "fp32" else []),
        *([] if setup.compile else ["engine.compile=true"]),
        *([f"--ranks {setup.gpus}"] if setup.gpus > setup.ranks else []),
    ]
    others = "a larger optim.batch_size, or a smaller backbone"
    return f"computing the model; try {', '.join(settings) or others}"


def _balanced(speeds: Speeds, setup: Setup) -> str:
    return (
        "computing the model, and the loader is just as fast; a faster model needs --cache DIR or more "
        "--workers"
    )


_ADVICE = {
    "loader": _loader,
    "communication": _communication,
    "loop": _loop,
    "checkpoint": _checkpoint,
    "trials": _trials,
    "compute": _compute,
    "balanced": _balanced,
}
