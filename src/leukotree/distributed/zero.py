"""DeepSpeed: ZeRO stages 0 to 3, with or without offload. Imported only when a spec asks for it."""

from __future__ import annotations

import atexit
import contextlib
import copy
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from leukotree.distributed.engine import Engine
from leukotree.distributed.strategy import MOMENTS, Strategy, synchronised
from leukotree.models.classifier import Classifier
from leukotree.spec import RunSpec


class Replicated(Strategy):
    """ZeRO 0: DeepSpeed's engine around a model and an optimiser that each rank has whole."""

    trained: Any
    """DeepSpeed's engine."""

    def __init__(
        self, model: Classifier, spec: RunSpec, engine: Engine, optimized: Classifier | None = None
    ) -> None:
        super().__init__(model, spec, engine, optimized)
        # From stage 1 on DeepSpeed puts its flat shares in the place of these.
        self._groups = self.optimizer.state_dict()["param_groups"]
        self._parameters = [
            parameter for group in self.optimizer.param_groups for parameter in group["params"]
        ]
        self.trained = _initialised(self.optimized, self.optimizer, spec, engine)

    @contextlib.contextmanager
    def micro_batch(self, last: bool) -> Iterator[None]:
        self.trained.set_gradient_accumulation_boundary(last)
        yield

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.trained(inputs)
        return logits.float()

    def backward(self, losses: torch.Tensor) -> None:
        # DeepSpeed divides the sum of gradients by the number of ranks. It must not divide by the number of
        # micro batches too: the losses are parts of their step's.
        self.trained.backward(losses.sum() * self.engine.world, scale_wrt_gas=False)

    def update(self, factor: float) -> bool:
        self._set_learning_rate(factor)
        self.trained.step()
        applied: bool = self.trained.was_step_applied()
        return applied

    def close(self) -> None:
        self.trained.destroy()  # its hooks would keep the model for as long as the process lives


class Sharded(Replicated):
    """ZeRO 1 and 2: each rank has the optimiser's state (and the gradients) of its share of the weights."""

    def __init__(
        self, model: Classifier, spec: RunSpec, engine: Engine, optimized: Classifier | None = None
    ) -> None:
        super().__init__(model, spec, engine, optimized)
        # Before the first step: in the step of the first group DeepSpeed notes where the moments of all
        # groups lie.
        for share in self._shares():
            step = torch.zeros((), device=share.device)
            moments = {name: torch.zeros_like(share) for name in MOMENTS}
            self.optimizer.state[share] = {"step": step, **moments}
        self._link()

    def _weights(self) -> dict[str, torch.Tensor]:
        return self.optimized.state_dict()

    def _set_weights(self, weights: dict[str, torch.Tensor]) -> None:
        self.optimized.load_state_dict(weights)
        self.trained.optimizer.refresh_fp32_params()

    def _optimizer_state(self) -> dict[str, Any]:
        """The state that torch's AdamW has for whole parameters; only on the main rank with the moments."""
        from deepspeed.utils import safe_get_full_optimizer_state

        step = self.optimizer.state[self._shares()[0]]["step"]
        state: dict[int, dict[str, torch.Tensor]] = {}
        for number, parameter in enumerate(self._parameters):
            state[number] = {"step": step.cpu().clone()}
            for name in MOMENTS:
                whole = safe_get_full_optimizer_state(parameter, name)
                if self.engine.is_main:
                    state[number][name] = whole.cpu()
        rates = [
            {**group, "lr": now["lr"]}
            for group, now in zip(self._groups, self.optimizer.param_groups, strict=True)
        ]
        return {"state": state, "param_groups": rates}

    def _set_optimizer_state(self, state: dict[str, Any]) -> None:
        if not (whole := state.get("state")):  # DDP has none before its first step
            return
        for share in self._shares():
            self.optimizer.state[share]["step"].copy_(whole[0]["step"])
        for number, parameter in enumerate(self._parameters):
            for name in MOMENTS:
                self._set_moment(parameter, whole[number][name].to(self.engine.device), name)

    def _shares(self) -> list[torch.Tensor]:
        """This rank's flat share of the weights of each group."""
        return [share for group in self.optimizer.param_groups for share in group["params"]]

    def _link(self) -> None:
        """Have DeepSpeed note where the moments lie, for its getters and setters."""
        self.trained.optimizer._lazy_init_hp_params_optimizer_state()

    def _set_moment(self, parameter: nn.Parameter, value: torch.Tensor, name: str) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state

        safe_set_full_optimizer_state(parameter, value, name)


class Partitioned(Sharded):
    """ZeRO 3: each rank also has only its share of the weights.

    A copy of the model is trained; `model` is filled for evaluation. DeepSpeed would gather weights during a
    forward pass, where a rank that has no batch left would be missed by the others.
    """

    def __init__(self, model: Classifier, spec: RunSpec, engine: Engine) -> None:
        optimized = copy.deepcopy(model)
        super().__init__(model.cpu(), spec, engine, optimized)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        self.model.load_state_dict(self._weights(everywhere=True))
        self.model.to(self.engine.device)
        try:
            with super().evaluating():
                yield
        finally:
            self.model.cpu()

    def close(self) -> None:
        super().close()
        # DeepSpeed's objects refer to each other where the garbage collector cannot see it: the tensors are
        # freed here.
        weights: list[Any] = list(self.optimized.parameters())
        for share in (*self._shares(), *(parameter.ds_tensor for parameter in weights)):
            share.data = torch.empty(0)
        self.optimizer.state.clear()

    def _weights(self, everywhere: bool = False) -> dict[str, torch.Tensor]:
        from deepspeed.utils import safe_get_full_fp32_param

        weights = {name: buffer.detach().cpu() for name, buffer in self.optimized.state_dict().items()}
        weights |= self._frozen_weights()  # they are in no optimiser, which DeepSpeed would ask
        for name, parameter in self.optimized.named_parameters():
            if name in self._frozen:
                continue
            whole = safe_get_full_fp32_param(parameter)
            if everywhere or self.engine.is_main:
                weights[name] = whole.cpu()
        return weights

    def _set_weights(self, weights: dict[str, torch.Tensor]) -> None:
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(self.optimized.parameters()), modifier_rank=0):
            self.optimized.load_state_dict(weights)
        self.trained.optimizer.refresh_fp32_params()

    def _shares(self) -> list[torch.Tensor]:
        return list(self.trained.optimizer.fp32_partitioned_groups_flat)

    def _link(self) -> None:
        pass  # DeepSpeed finds moments by the parameter's place

    def _set_moment(self, parameter: nn.Parameter, value: torch.Tensor, name: str) -> None:
        from deepspeed.utils import safe_set_local_optimizer_state

        share = parameter.ds_tensor.ds_numel  # type: ignore[attr-defined]
        flat = nn.functional.pad(value.flatten(), (0, share * self.engine.world - value.numel()))
        safe_set_local_optimizer_state(parameter, flat.narrow(0, share * self.engine.rank, share), name)


STAGES: dict[str, type[Replicated]] = {
    "zero0": Replicated,
    "zero1": Sharded,
    "zero2": Sharded,
    "zero3": Partitioned,
}
"""`engine.strategy` -> its class."""


class _Autocast(nn.Module):
    """A model inside autocast. DeepSpeed turns off an autocast around its engine, and its own would send bf16
    gradients."""

    def __init__(self, model: nn.Module, spec: RunSpec, engine: Engine) -> None:
        super().__init__()
        self.model, self._spec, self._engine = model, spec, engine

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        with self._engine.autocast(self._spec.engine):
            logits: torch.Tensor = self.model(inputs)
        return logits


def _initialised(model: Classifier, optimizer: torch.optim.Optimizer, spec: RunSpec, engine: Engine) -> Any:
    """DeepSpeed's engine around a model and its optimiser."""
    deepspeed = _imported(engine)
    # DeepSpeed takes no other memory format.
    plain = synchronised(model, engine.device).to(memory_format=torch.contiguous_format)
    inside = _Autocast(plain, spec, engine)
    trained, *_ = deepspeed.initialize(model=inside, optimizer=optimizer, config=config(spec, engine))
    return trained


def config(spec: RunSpec, engine: Engine) -> dict[str, Any]:
    """DeepSpeed's configuration: the spec's values, and those that only change speed (`engine.deepspeed`)."""
    share = spec.optim.batch_size // engine.world
    micro = spec.engine.micro_batch or share
    tuning = dict((engine.deepspeed or {}).get(spec.engine.strategy, {}))
    zero = _zero_config(spec, engine, tuning.pop("zero_optimization", {}))
    return {
        **tuning,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": share // micro,
        "gradient_clipping": spec.optim.clip or 0.0,
        "zero_optimization": zero,
        # DeepSpeed's own is compiled at the first start; torch's is vectorised too.
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": None,
        "timers": {"throughput": {"enabled": False}},
    }


def _zero_config(spec: RunSpec, engine: Engine, tuning: Mapping[str, Any]) -> dict[str, Any]:
    stage = int(spec.engine.strategy.removeprefix("zero"))
    # `memory_efficient_linear` would patch torch.
    zero = {**tuning, "stage": stage, "memory_efficient_linear": False}
    if stage in (1, 2):
        # Without clipping nobody needs the norm of the gradients; only offload cannot do without it.
        zero["compute_grad_norm"] = bool(spec.optim.clip) or spec.engine.offload
    for part in ("offload_optimizer", "offload_param"):
        options = zero.pop(part, {})
        if spec.engine.offload and (part == "offload_optimizer" or stage == 3):
            zero[part] = {"pin_memory": engine.pin, **options, "device": "cpu"}
    return zero


_world: dist.ProcessGroup | None = None
"""The process group that DeepSpeed's own groups were made from."""


def _imported(engine: Engine) -> Any:
    """DeepSpeed, ready for the ranks of this process group. It logs errors only."""
    global _world
    os.environ["DS_ACCELERATOR"] = engine.device.type
    import deepspeed
    import deepspeed.comm.comm
    import deepspeed.ops
    from deepspeed.utils import groups

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # DeepSpeed calls deprecated functions in each step.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    # Else it would compile its own collective for the CPU at the first start.
    deepspeed.ops.__compatible_ops__ = {}
    if not dist.is_initialized():
        _make_group_of_one(engine)
    if dist.group.WORLD is not _world:
        groups._release_process_group_references()
        deepspeed.comm.comm.cdb = None
        _world = dist.group.WORLD
        deepspeed.init_distributed(dist_backend=dist.get_backend(), auto_mpi_discovery=False, verbose=False)
    return deepspeed


def _make_group_of_one(engine: Engine) -> None:
    """Make a process group of this process alone, for as long as the process lives."""
    os.environ.setdefault("LOCAL_RANK", "0")
    backend = "cpu:gloo,cuda:nccl" if engine.device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    atexit.register(dist.destroy_process_group)
