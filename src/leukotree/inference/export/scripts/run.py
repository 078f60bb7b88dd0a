"""Classify images with model.onnx: python run.py IMAGE [IMAGE ...]. Needs onnxruntime, numpy and pillow."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

here = Path(__file__).resolve().parent
model = json.loads((here / "model.json").read_text(encoding="utf-8"))
session = onnxruntime.InferenceSession(str(here / "model.onnx"), providers=["CPUExecutionProvider"])
side = (model["size"], model["size"])
for path in sys.argv[1:]:
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    pixels = np.asarray(image if image.size == side else image.resize(side, Image.Resampling.BICUBIC))
    edges, leaves = session.run(None, {"images": pixels.transpose(2, 0, 1)[None]})
    node, p_edge = model["root"], dict(zip(model["edges"], np.exp(edges[0]).tolist(), strict=True))
    while node in model["children"]:  # the most probable child at each decision, down to a leaf
        node = max(model["children"][node], key=p_edge.__getitem__)
    p_leaf = dict(zip(model["leaves"], leaves[0].tolist(), strict=True))
    print(json.dumps({"image": path, "leaf": node, "p_leaves": p_leaf, "p_edges": p_edge}))
