"""A TIFF written field by field, so that tests can hold what no library writes."""

import struct

import numpy as np

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, OFFSETS, SAMPLES, ROWS, COUNTS = (
    256,
    257,
    258,
    259,
    262,
    273,
    277,
    278,
    279,
)
KIND, DESCRIPTION, MOST, PLANAR, COLOURS, EXTRA, FORMAT = 254, 270, 281, 284, 320, 338, 339
"""Numbers of fields. KIND is NewSubfileType, MOST is MaxSampleValue, COLOURS the palette, FORMAT is 1 for
unsigned numbers."""


def page(pixels, photometric=None, pack=bytes, planes=False, **fields):
    """(fields, strips) of a page from (H, W) or (H, W, C) numbers, in one strip, or a strip per channel;
    `pack` compresses."""
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    height, width = pixels.shape[:2]
    parts = [pixels[..., channel] for channel in range(channels)] if planes and channels > 1 else [pixels]
    known = {
        WIDTH: width,
        HEIGHT: height,
        BITS: [8 * pixels.itemsize] * channels,
        COMPRESSION: 1,
        SAMPLES: channels,
        ROWS: height,
        PHOTOMETRIC: (2 if channels > 2 else 1) if photometric is None else photometric,
        PLANAR: 2 if planes else 1,
    }
    extra = {int(name[1:]): value for name, value in fields.items()}
    return known | extra, [pack(part.tobytes()) for part in parts]


def tiff(*pages, order="<"):
    """The file of some pages, the byte order of the fields as in `struct`. The strips are written as they
    are."""
    out = bytearray({"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, 0))
    link = 4
    for fields, strips in pages:
        offsets = []
        for strip in strips:
            out += bytes(-len(out) % 2)
            offsets.append(len(out))
            out += strip
        entries, at = [], {}
        for tag, value in sorted(
            (fields | {OFFSETS: offsets, COUNTS: [len(strip) for strip in strips]}).items()
        ):
            if isinstance(value, bytes):
                kind, count, content = (7 if tag == 347 else 2), len(value), value
            else:
                values = list(np.atleast_1d(value))
                wide = tag in (OFFSETS, COUNTS, KIND)
                kind, count = (4 if wide else 3), len(values)
                content = struct.pack(f"{order}{count}{'I' if wide else 'H'}", *map(int, values))
            if len(content) > 4:
                out += bytes(-len(out) % 2)
                at[tag] = len(out)
                out += content
                content = struct.pack(order + "I", at[tag])
            entries.append(struct.pack(order + "HHI", tag, kind, count) + content.ljust(4, b"\0"))
        out += bytes(-len(out) % 2)
        out[link : link + 4] = struct.pack(order + "I", len(out))
        out += struct.pack(order + "H", len(entries)) + b"".join(entries) + bytes(4)
        link = len(out) - 4
    return bytes(out)
