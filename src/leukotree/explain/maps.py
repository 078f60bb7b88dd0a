"""Maps: how much each place of an image counts for a target, by several methods.

* Grad-CAM (Selvaraju et al. 2017): feature maps, weighted by the mean gradient of each channel.
* HiResCAM (Draelos and Carin 2020): feature maps times their gradients, place by place.
* Score-CAM (Wang et al. 2020): feature maps, weighted by the softmax of the outputs for the image seen
  through each of them. It needs no gradient, and a pass for each channel.
* Attention rollout (Abnar and Zuidema 2020): the attention of all blocks multiplied, half of it identity for
  the residual connection. It does not depend on the target, only on the model. Vision transformers only.

The first three are those of pytorch-grad-cam: negative values become 0, each map is scaled to [0, 1], and
resized bilinearly to the image.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from leukotree.explain.layers import Layer
from leukotree.explain.targets import Target, View
from leukotree.explain.wrapped import Weighted

Item = tuple[int, tuple[int, ...]]
"""The position of an image in its batch, and the columns of `Outputs` that are explained."""
AT_ONCE = 16
"""Images in one pass of a model."""


def compute(
    method: str, views: Sequence[View], inputs: torch.Tensor, wanted: Sequence[tuple[int, Target]]
) -> np.ndarray:
    """(P, H, W) float32 maps in [0, 1], one for each pair of an image and a target.

    Args:
        method: one of METHODS.
        views: of the run, see `targets.views`.
        inputs: (B, 3, H, W) inputs of the models, on their device.
        wanted: P pairs of a position in the batch and a target. A target with several views gets the mean of
            their maps.

    A map is all 0 where nothing speaks for the target, and NaN where the model's outputs are.
    """
    maps = np.zeros((len(wanted), *inputs.shape[-2:]), np.float32)
    for place, view in enumerate(views):
        rows = [row for row, (_, target) in enumerate(wanted) if place in target.views]
        items = [(wanted[row][0], wanted[row][1].columns) for row in rows]
        if not rows:
            continue
        found = METHODS[method](view, inputs.detach(), items)
        shares = np.array([1 / len(wanted[row][1].views) for row in rows], np.float32)
        maps[rows] += shares[:, None, None] * found
    return maps


def suits(method: str, views: Sequence[View]) -> bool:
    """Whether a method works for a run: attention rollout needs attention."""
    return method != "rollout" or all(view.layer.attentions for view in views)


def _by_gradient(name: str, view: View, inputs: torch.Tensor, items: Sequence[Item]) -> np.ndarray:
    """(P, H, W) maps by a class of pytorch-grad-cam."""
    import pytorch_grad_cam

    parts = []
    with _cam(getattr(pytorch_grad_cam, name), view) as cam:
        for start in range(0, len(items), AT_ONCE):
            part = items[start : start + AT_ONCE]
            images = inputs[[image for image, _ in part]]
            # The weights are frozen: the gradient starts at the image, and no weight gets one.
            parts.append(cam(images.requires_grad_(), [Weighted(columns) for _, columns in part]))
    return np.concatenate(parts)


def _score_cam(view: View, inputs: torch.Tensor, items: Sequence[Item]) -> np.ndarray:
    """(P, H, W) Score-CAM maps. The passes of an image serve all of its targets."""
    maps = np.empty((len(items), *inputs.shape[-2:]), np.float32)
    with _cam(_shared_score_cam(), view) as cam, torch.no_grad():
        for image in sorted({image for image, _ in items}):
            rows = [row for row, (of, _) in enumerate(items) if of == image]
            copies = inputs[[image] * len(rows)]
            maps[rows] = cam(copies, [Weighted(items[row][1]) for row in rows])
    return maps


def _rollout(view: View, inputs: torch.Tensor, items: Sequence[Item]) -> np.ndarray:
    """(P, H, W) rollouts of the images."""
    images = sorted({image for image, _ in items})
    parts = [
        rollout(view.module, view.layer, inputs[images[start : start + AT_ONCE]])
        for start in range(0, len(images), AT_ONCE)
    ]
    place = {image: row for row, image in enumerate(images)}
    return np.concatenate(parts)[[place[image] for image, _ in items]]


METHODS: dict[str, Callable[[View, torch.Tensor, Sequence[Item]], np.ndarray]] = {
    "gradcam": functools.partial(_by_gradient, "GradCAM"),
    "hirescam": functools.partial(_by_gradient, "HiResCAM"),
    "scorecam": _score_cam,
    "rollout": _rollout,
}
"""Method -> function from (view, inputs, items) to (P, H, W) maps."""


@contextmanager
def _cam(kind: Any, view: View) -> Iterator[Any]:
    """An object of pytorch-grad-cam, whose hooks are gone afterwards. Its own context would print an
    IndexError and go on."""
    cam = kind(view.module, [view.layer.module], view.layer.reshape)
    try:
        yield cam
    finally:
        cam.activations_and_grads.release()


@functools.cache
def _shared_score_cam() -> Any:
    """pytorch-grad-cam's Score-CAM for a batch that repeats one image: its passes are made once for all
    targets, and show no bars."""
    from pytorch_grad_cam import ScoreCAM

    class Shared(ScoreCAM):
        def get_cam_weights(
            self, inputs: torch.Tensor, layer: Any, targets: Any, features: np.ndarray, grads: Any
        ) -> np.ndarray:
            wide = torch.from_numpy(features[:1]).to(inputs.device)
            wide = nn.functional.interpolate(
                wide, size=tuple(inputs.shape[-2:]), mode="bilinear", align_corners=True
            )[0]
            low, high = wide.amin((1, 2), keepdim=True), wide.amax((1, 2), keepdim=True)
            seen_through = (wide - low) / (high - low + 1e-8)
            outputs = torch.cat(
                [self.model(inputs[0] * part[:, None]) for part in seen_through.split(AT_ONCE)]
            )
            scores = torch.stack([target(outputs) for target in targets])
            return scores.float().softmax(dim=1).cpu().numpy()

    return Shared


@torch.no_grad()
def rollout(module: nn.Module, layer: Layer, inputs: torch.Tensor) -> np.ndarray:
    """(B, H, W) attention rollout in [0, 1]: what the class token, or the mean of the patches where the model
    has no class token, reads from each patch.

    Raises ValueError for a layer without attention.
    """
    if layer.tokens is None or not layer.attentions:
        raise ValueError("attention rollout needs attention")
    flow: torch.Tensor | None = None
    for attention in _attention(module, layer.attentions, inputs):
        mixed = (attention.float().mean(dim=1) + torch.eye(attention.shape[-1], device=attention.device)) / 2
        mixed = mixed / mixed.sum(dim=-1, keepdim=True)
        flow = mixed if flow is None else mixed @ flow
    assert flow is not None
    tokens = layer.tokens
    read = flow[:, 0] if tokens.pooled == "token" and tokens.prefix else flow[:, tokens.prefix :].mean(dim=1)
    patches = read[:, tokens.prefix :].unflatten(1, tokens.grid).cpu().numpy()
    return np.stack([_scaled(patch, inputs.shape[-1], inputs.shape[-2]) for patch in patches])


def _scaled(values: np.ndarray, width: int, height: int) -> np.ndarray:
    """The values scaled to [0, 1] and resized, as pytorch-grad-cam does."""
    values = values - values.min()
    return cv2.resize(np.asarray(values / (1e-7 + values.max()), np.float32), (width, height))


def _attention(module: nn.Module, blocks: Sequence[Any], inputs: torch.Tensor) -> list[torch.Tensor]:
    """(B, heads, N, N) attention of each block, which the fused kernel would not give."""
    caught: dict[int, torch.Tensor] = {}

    def note(number: int, _: nn.Module, __: Any, attention: torch.Tensor) -> None:
        caught[number] = attention

    fused = [getattr(block, "fused_attn", False) for block in blocks]
    handles = [
        block.attn_drop.register_forward_hook(functools.partial(note, number))
        for number, block in enumerate(blocks)
    ]
    try:
        for block in blocks:
            block.fused_attn = False
        module(inputs)
    finally:
        for block, was, handle in zip(blocks, fused, handles, strict=True):
            block.fused_attn = was
            handle.remove()
    return [caught[number] for number in range(len(blocks))]
