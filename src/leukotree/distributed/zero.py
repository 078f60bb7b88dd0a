"""DeepSpeed behind the seam of `strategy`: ZeRO stages 0 to 3, with or without offload. Imported only when a
spec asks for it."""

from __future__ import annotations

import atexit
import contextlib
import copy
import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from leukotree.distributed.engine import Engine
from leukotree.distributed.strategy import MOMENTS, Strategy, synchronised
from leukotree.models.classifier import Classifier
from leukotree.spec import RunSpec


def choose(model: Classifier, spec: RunSpec, engine: Engine) -> Strategy:
    """The ZeRO stage that a spec names."""
    kinds: dict[str, type[Replicated]] = {
        "zero0": Replicated,
        "zero1": Sharded,
        "zero2": Sharded,
        "zero3": Partitioned,
    }
    return kinds[spec.engine.strategy](model, spec, engine)


class Replicated(Strategy):
    """ZeRO 0: DeepSpeed's engine around a model and an optimiser that each rank has whole."""

    def _wrap(self, model: nn.Module) -> nn.Module:
        deepspeed = _imported(self.engine)
        model = synchronised(model, self.engine.device).to(
            memory_format=torch.contiguous_format
        )  # it takes no other
        inside = _Autocast(model, self.spec, self.engine)
        self.trained, *_ = deepspeed.initialize(
            model=inside, optimizer=self.optimizer, config=config(self.spec, self.engine)
        )
        module: nn.Module = self.trained
        return module

    def rehearse(self, inputs: torch.Tensor) -> None:
        """Nothing: its gradients are exchanged in the same order from the first step on."""

    @contextlib.contextmanager
    def micro_batch(self, last: bool) -> Iterator[None]:
        self.trained.set_gradient_accumulation_boundary(last)
        yield

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.trained(inputs)
        return logits.float()

    def backward(self, losses: torch.Tensor) -> None:
        # It divides the sum of gradients by the number of ranks; the losses are parts of their step's
        # already.
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

    def __init__(self, model: Classifier, spec: RunSpec, engine: Engine) -> None:
        self._groups: list[dict[str, Any]] = []
        self._parameters: list[nn.Parameter] = []
        super().__init__(model, spec, engine)

    def _wrap(self, model: nn.Module) -> nn.Module:
        # DeepSpeed puts its flat shares in their place.
        self._groups = self.optimizer.state_dict()["param_groups"]
        self._parameters = [
            parameter for group in self.optimizer.param_groups for parameter in group["params"]
        ]
        wrapped = super()._wrap(model)
        # Before the first step: after the step of the first group DeepSpeed notes where the moments of all of
        # them lie.
        for share in self._shares():
            step = torch.zeros((), device=share.device)
            self.optimizer.state[share] = {
                "step": step,
                **{name: torch.zeros_like(share) for name in MOMENTS},
            }
        self._link()
        return wrapped

    def state(self, optimizer: bool = True) -> dict[str, Any]:
        state: dict[str, Any] = {"model": self._weights()}
        return {**state, "optimizer": self._optimizer_state()} if optimizer else state

    def load(self, state: dict[str, Any]) -> None:
        self._set_weights(state["model"])
        if moments := state.get("optimizer", {}).get("state"):  # DDP has none before its first step
            self._set_optimizer_state(moments)

    def _weights(self) -> dict[str, torch.Tensor]:
        return self.model.state_dict()

    def _set_weights(self, weights: dict[str, torch.Tensor]) -> None:
        self.model.load_state_dict(weights)
        self.trained.optimizer.refresh_fp32_params()

    def _optimizer_state(self) -> dict[str, Any]:
        """As torch's AdamW gives it for whole parameters; on other ranks than the main one without the
        moments."""
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

    def _set_optimizer_state(self, state: dict[int, dict[str, torch.Tensor]]) -> None:
        for share in self._shares():
            self.optimizer.state[share]["step"].copy_(state[0]["step"])
        for number, parameter in enumerate(self._parameters):
            for name in MOMENTS:
                self._set_moment(parameter, state[number][name].to(self.engine.device), name)

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
    """ZeRO 3: each rank also has only its share of the weights. `model` is a copy that is filled for
    evaluation: DeepSpeed's own gathers during a forward pass, where a rank that has no batch left would be
    missed by the others."""

    def __init__(self, model: Classifier, spec: RunSpec, engine: Engine) -> None:
        super().__init__(copy.deepcopy(model), spec, engine)
        self._copy = self.model
        self.model = model.cpu()

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
        # Its objects refer to each other where no collector sees it; what they hold can go.
        weights: list[Any] = list(self._copy.parameters())
        for share in (*self._shares(), *(parameter.ds_tensor for parameter in weights)):
            share.data = torch.empty(0)
        self.optimizer.state.clear()

    def _weights(self, everywhere: bool = False) -> dict[str, torch.Tensor]:
        from deepspeed.utils import safe_get_full_fp32_param

        weights = {name: buffer.detach().cpu() for name, buffer in self._copy.state_dict().items()}
        for name, parameter in self._copy.named_parameters():
            whole = safe_get_full_fp32_param(parameter)
            if everywhere or self.engine.is_main:
                weights[name] = whole.cpu()
        return weights

    def _set_weights(self, weights: dict[str, torch.Tensor]) -> None:
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(self._copy.parameters()), modifier_rank=0):
            self._copy.load_state_dict(weights)
        self.trained.optimizer.refresh_fp32_params()

    def _shares(self) -> list[torch.Tensor]:
        return list(self.trained.optimizer.fp32_partitioned_groups_flat)

    def _link(self) -> None:
        pass  # moments are found by the parameter's place

    def _set_moment(self, parameter: nn.Parameter, value: torch.Tensor, name: str) -> None:
        from deepspeed.utils import safe_set_local_optimizer_state

        share = parameter.ds_tensor.ds_numel  # type: ignore[attr-defined]
        flat = nn.functional.pad(value.flatten(), (0, share * self.engine.world - value.numel()))
        safe_set_local_optimizer_state(parameter, flat.narrow(0, share * self.engine.rank, share), name)


class _Autocast(nn.Module):
    """Autocast inside the model: DeepSpeed turns off one that is around it, and its own would send bf16
    gradients."""

    def __init__(self, model: nn.Module, spec: RunSpec, engine: Engine) -> None:
        super().__init__()
        self.model, self._spec, self._engine = model, spec, engine

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        with self._engine.autocast(self._spec.engine):
            logits: torch.Tensor = self.model(inputs)
        return logits


def config(spec: RunSpec, engine: Engine) -> dict[str, Any]:
    """DeepSpeed's configuration: what the spec decides, over what only decides speed (`engine.deepspeed`)."""
    stage = int(spec.engine.strategy.removeprefix("zero"))
    share = spec.optim.batch_size // engine.world
    micro = spec.engine.micro_batch or share
    tuning = dict((engine.deepspeed or {}).get(spec.engine.strategy, {}))
    zero = {
        **tuning.pop("zero_optimization", {}),
        "stage": stage,
        "memory_efficient_linear": False,
    }  # it patches torch
    if stage in (1, 2):
        # Without it gradients are not looked through for a norm that nobody asked for; offload cannot go
        # without.
        zero["compute_grad_norm"] = bool(spec.optim.clip) or spec.engine.offload
    for part in ("offload_optimizer", "offload_param"):
        options = zero.pop(part, {})
        if spec.engine.offload and (part == "offload_optimizer" or stage == 3):
            zero[part] = {"pin_memory": engine.pin, **options, "device": "cpu"}
    return {
        **tuning,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": share // micro,
        "gradient_clipping": spec.optim.clip or 0.0,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,  # theirs is compiled at the first start; torch's is vectorised too
        "steps_per_print": None,
        "timers": {"throughput": {"enabled": False}},
    }


_world: dist.ProcessGroup | None = None
"""The process group that DeepSpeed has made its own of."""


def _imported(engine: Engine) -> Any:
    """DeepSpeed on the ranks of this process group; it says nothing unless something fails."""
    global _world
    os.environ["DS_ACCELERATOR"] = engine.device.type
    import deepspeed
    import deepspeed.comm.comm
    import deepspeed.ops
    from deepspeed.utils import groups

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings(
        "ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning
    )  # it calls them in each step
    deepspeed.ops.__compatible_ops__ = {}  # it would compile a collective of its own for the CPU, at the first start
    if not dist.is_initialized():  # one process: a group of one, for as long as it lives
        os.environ.setdefault("LOCAL_RANK", "0")
        backend = "cpu:gloo,cuda:nccl" if engine.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
        atexit.register(dist.destroy_process_group)
    if dist.group.WORLD is not _world:
        groups._release_process_group_references()
        deepspeed.comm.comm.cdb = None
        _world = dist.group.WORLD
        deepspeed.init_distributed(dist_backend=dist.get_backend(), auto_mpi_discovery=False, verbose=False)
    return deepspeed
