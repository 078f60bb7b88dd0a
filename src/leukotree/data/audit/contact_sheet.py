"""The contact sheet: images that look the same, side by side on one self-contained HTML page.

It shows pairs, and then the groups of three or more images that pairs join.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from leukotree.data.audit.audit import Audit
from leukotree.data.audit.near_duplicates import Pair
from leukotree.data.dataset import Dataset
from leukotree.data.images import codec
from leukotree.errors import InputError, RunFailed
from leukotree.files import write_atomic

PAIRS = 200
"""Largest number of pairs on the page, which also gives the number of all pairs."""
GROUPS, OF_GROUP = 40, 12
"""Largest number of groups on the page, and of images of each."""
_SIDE = 160
"""Largest side of a thumbnail in pixels."""
_PAGE = """{% macro figure(image) %}
<figure>
{% if image.data %}
<img alt="{{ image.name }}" src="data:image/jpeg;base64,{{ image.data }}">
{% else %}
<p>cannot be read</p>
{% endif %}
<figcaption>{{ image.name }}<br>{{ image.leaf }}, fold {{ image.fold }}, group {{ image.group }}</figcaption>
</figure>
{% endmacro %}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Pairs that look the same: {{ folder }}</title>
<style>
body { font-family: sans-serif; margin: 2em; }
.pair, .group { border-top: 1px solid #bbb; padding: 0.8em 0; display: flex; gap: 1.5em; flex-wrap: wrap; }
.across h2 { color: #a00; }
h2 { font-size: 1em; width: 9em; margin: 0; }
figure { margin: 0; width: 20em; overflow-wrap: anywhere; }
</style>
</head>
<body>
<h1>Pairs that look the same</h1>
<p>{{ folder }}: {{ total }} pair(s), {{ across }} of them across folds. {{ note }}</p>
{% for pair in pairs %}
<div class="pair{{ ' across' if pair.across }}">
<h2>{{ pair.title }}</h2>
{% for image in pair.images %}
{{ figure(image) }}
{% endfor %}
</div>
{% endfor %}
{% if groups %}
<h1>Groups that look the same</h1>
<p>{{ n_groups }} group(s) of three or more images, directly or through others; the first {{ groups|length }}
are shown, the largest first, with up to {{ of_group }} images each. `leukotree pack --group-near-duplicates`
keeps the images of such a group together that have no patient.</p>
{% for group in groups %}
<div class="group{{ ' across' if group.across }}">
<h2>{{ group.title }}</h2>
{% for image in group.images %}
{{ figure(image) }}
{% endfor %}
</div>
{% endfor %}
{% endif %}
</body>
</html>
"""


def write(audited: Audit, path: Path) -> None:
    """Write the page of an audit: copies across folds, near duplicates across folds, then pairs in one fold.

    Raises InputError if the file cannot be written.
    """
    from jinja2 import Environment, StrictUndefined

    alike, data = audited.near_duplicates, audited.dataset
    shown = alike.pairs[:PAIRS]
    groups = alike.groups
    note = (
        f"The first {PAIRS} are shown; `leukotree audit SHARDS --json` lists all."
        if len(alike.pairs) > PAIRS
        else "All are shown."
    )
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    html = environment.from_string(_PAGE).render(
        folder=data.name,
        total=len(alike.pairs),
        across=sum(pair.across for pair in alike.pairs),
        note=note,
        pairs=[_described(audited, pair) for pair in shown],
        groups=[_of_group(audited, rows) for rows in groups[:GROUPS]],
        n_groups=len(groups),
        of_group=OF_GROUP,
    )
    try:
        write_atomic(path, html)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written: {error.strerror}; choose another file for --html"
        ) from error


def _described(audited: Audit, pair: Pair) -> dict[str, Any]:
    """Return what the page shows of a pair."""
    kind = "exact copies" if pair.exact else "near duplicates"
    return {
        "title": f"{kind}, {'different folds' if pair.across else 'one fold'}",
        "across": pair.across,
        "images": [_image(audited, row) for row in pair.rows],
    }


def _of_group(audited: Audit, rows: np.ndarray) -> dict[str, Any]:
    """Return what the page shows of a group."""
    folds = audited.near_duplicates.index["fold"].iloc[rows].nunique()
    return {
        "title": f"{len(rows)} images, {f'{folds} folds' if folds > 1 else 'one fold'}",
        "across": folds > 1,
        "images": [_image(audited, int(row)) for row in rows[:OF_GROUP]],
    }


def _image(audited: Audit, row: int) -> dict[str, Any]:
    sample = audited.near_duplicates.index.iloc[row]
    texts = {"name": sample["shown"], **{name: sample[name] for name in ("leaf", "fold", "group")}}
    return {**texts, "data": _thumbnail(audited.dataset, row)}


def _thumbnail(data: Dataset, row: int) -> str:
    """Return the base64 of a small JPEG; "" if the sample cannot be read, which the audit reports."""
    try:
        pixels = Image.fromarray(codec.decode(data.read(row)))
    except (InputError, RunFailed, codec.BrokenImage):
        return ""
    pixels.thumbnail((_SIDE, _SIDE))
    return base64.b64encode(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), 85)).decode()
