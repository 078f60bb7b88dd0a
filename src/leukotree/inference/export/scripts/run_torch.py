"""Classify images with model.pt2: python run_torch.py IMAGE [IMAGE ...]. Needs torch, numpy and pillow."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

here = Path(__file__).resolve().parent
model = json.loads((here / "model.json").read_text(encoding="utf-8"))
program = torch.export.load(here / "model.pt2").module()
side = (model["size"], model["size"])
for path in sys.argv[1:]:
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    pixels = np.array(image if image.size == side else image.resize(side, Image.Resampling.BICUBIC))
    with torch.inference_mode():
        edges, leaves = program(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    p_edge = dict(zip(model["edges"], edges[0].exp().tolist(), strict=True))
    p_leaf = dict(zip(model["leaves"], leaves[0].tolist(), strict=True))
    print(json.dumps({"image": path, "p_leaves": p_leaf, "p_edges": p_edge}))
