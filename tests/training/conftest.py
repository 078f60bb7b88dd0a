"""What tests of training share."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights for a small ResNet, whose BatchNorms must not move in a frozen backbone."""
    path = tmp_path_factory.mktemp("weights") / "resnet.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), path)
    return path
