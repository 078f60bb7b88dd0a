"""Repositories of models, with random weights, as timm writes them and as the hub's cache keeps them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import timm
import torch
from timm.models import save_for_hf

COMMIT = "1" * 40
CARD = "---\nlicense: mit\n---\nA model of a test.\n"


def folder(place: Path, architecture: str = "test_vit", size: int = 160, seed: int = 0) -> Path:
    """Write `config.json`, `model.safetensors` and a card of a model with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = timm.create_model(architecture)
    data = {"input_size": (3, size, size), "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    save_for_hf(model, str(place), safe_serialization=True, data_config=data)
    (place / "README.md").write_text(CARD)
    return place


def cached(cache: Path, repository: str, files: Path, commit: str = COMMIT, branch: str = "main") -> Path:
    """Lay the files of a folder into a cache as huggingface_hub does: the bytes in `blobs`, and links to them
    in the snapshot, whose folder is returned."""
    place = cache / f"models--{repository.replace('/', '--')}"
    snapshot = place / "snapshots" / commit
    for part in (place / "refs", place / "blobs", snapshot):
        part.mkdir(parents=True, exist_ok=True)
    (place / "refs" / branch).write_text(commit)
    for file in sorted(path for path in files.iterdir() if path.is_file()):
        blob = place / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        blob.write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    return snapshot
