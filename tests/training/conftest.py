"""What tests of training share."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file


def save_random(path: Path, seed: int) -> None:
    """Write random weights of a small ResNet."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        save_file(timm.create_model("test_resnet").state_dict(), path)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights for a small ResNet, whose BatchNorms must not move in a frozen backbone."""
    path = tmp_path_factory.mktemp("weights") / "resnet.safetensors"
    save_random(path, 1)
    return path
