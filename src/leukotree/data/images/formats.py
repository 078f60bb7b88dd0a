"""The image formats that `pack` reads, and one line on every other file: what it is and what to do."""

from __future__ import annotations

FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
"""Pillow's name of each format that is read -> the endings of its files.

No format that starts another program is here, as EPS does.
"""
IMAGE_SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
"""Endings of the files that `import` takes, in lower case. `pack` looks at the bytes, not at the ending."""
_UNREAD = (
    ".avif .bif .bpg .cr2 .cr3 .czi .dcm .dib .dicom .dng .exr .fits .h5 .hdf5 .hdr .heic .heif .ico "
    ".ims .j2c .j2k .jls .jp2 .jpf .jpx .jxl .jxr .lif .lsm .mat .mha .mhd .mrxs .nd2 .ndpi .nef .nii "
    ".npy .npz .nrrd .oib .oif .orf .pcx .pfm .psb .psd .qptiff .raw .rw2 .scn .svs .tga .vms .vsi "
    ".wdp .xcf .zvi"
)
UNREAD_SUFFIXES = frozenset(_UNREAD.split())
"""Endings of images, and of arrays that may be images, in formats that are not read.

An import reports each of these endings by its name.
"""
MAX_PIXELS = 90_000_000
"""A larger image is refused before it is decoded.

It needs over 350 MB per worker, or is a decompression bomb.
"""
_SAVE = "save it as PNG or TIFF"
_UNPACK = "unpack it and name the images inside"
_STARTS = {
    b"version https://git-lfs": "a pointer of Git LFS, not the image; run `git lfs pull` where it came from",
    b"%PDF": f"a PDF document; {_SAVE}",
    b"%!PS": f"an EPS or PostScript drawing; {_SAVE}",
    b"\xc5\xd0\xd3\xc6": f"an EPS drawing; {_SAVE}",
    b"PK\x03\x04": f"a ZIP archive or an Office document; {_UNPACK}",
    b"\x1f\x8b": f"a gzip archive; {_UNPACK}",
    b"BZh": f"a bzip2 archive; {_UNPACK}",
    b"\xfd7zXZ\x00": f"an xz archive; {_UNPACK}",
    b"\x28\xb5\x2f\xfd": f"a Zstandard archive; {_UNPACK}",
    b"7z\xbc\xaf\x27\x1c": f"a 7z archive; {_UNPACK}",
    b"Rar!": f"a RAR archive; {_UNPACK}",
    b"\x93NUMPY": f"an array of NumPy; {_SAVE}",
    b"\x89HDF": f"an HDF5 file; {_SAVE}",
    b"MATLAB": f"a file of MATLAB; {_SAVE}",
    b"PAR1": f"a Parquet table; {_SAVE}",
    b"SIMPLE  =": f"a FITS image; {_SAVE}",
    b"\x00\x00\x00\x0cjP  ": f"a JPEG 2000 image; {_SAVE}",
    b"\xff\x4f\xff\x51": f"a JPEG 2000 image; {_SAVE}",
    b"\x00\x00\x00\x0cJXL ": f"a JPEG XL image; {_SAVE}",
    b"\xff\x0a": f"a JPEG XL image; {_SAVE}",
    b"\xff\xd8\xff\xf7": f"a JPEG-LS image; {_SAVE}",
    b"II\xbc\x01": f"a JPEG XR image; {_SAVE}",
    b"8BPS": f"a Photoshop image; {_SAVE}",
    b"qoif": f"a QOI image; {_SAVE}",
    b"icns": f"an icon (ICNS); {_SAVE}",
    b"DDS ": f"a DDS image; {_SAVE}",
    b"gimp xcf": f"a GIMP image; {_SAVE}",
    b"\x00\x00\x01\x00": f"an icon (ICO); {_SAVE}",
    b"v/1\x01": f"an OpenEXR image; {_SAVE}",
    b"#?R": f"a Radiance HDR image; {_SAVE}",
    b"P7\n": f"a PAM image; {_SAVE}",
    b"ZISRAWFILE": f"a CZI image of a microscope; {_SAVE}",
    b"\xda\xce\xbe\x0a": f"an ND2 image of a microscope; {_SAVE}",
    b"p\x00\x00\x00": f"a LIF image of a microscope; {_SAVE}",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an OLE file (Office, microscopes); export the image from it",
    b"\x00\x05\x16\x07": "notes of macOS about a file (AppleDouble), not the file; leave it out",
    b"bplist": "a property list of macOS; leave it out",
    b"SQLite format": "a database; export the images from it",
    b"\x7fELF": "a program; leave it out",
    b"\x1a\x45\xdf\xa3": "a video; save the frame that is the image as PNG",
    b"\x89PNG\n": "a PNG that was changed by a copy in text mode; copy it again, as binary data",
}
_MAGIC = (
    *((0, start, kind) for start, kind in _STARTS.items()),
    (128, b"DICM", f"a DICOM file; {_SAVE}"),
    (257, b"ustar", f"a tar archive; {_UNPACK}"),
    (4, b"ftypavi", f"an AVIF image; {_SAVE}"),
    (4, b"ftyphe", f"an HEIC image; {_SAVE}"),
    (4, b"ftypmif", f"an HEIF image; {_SAVE}"),
    (4, b"ftyp", "a video (MP4) or a camera's raw image; save the image in it as PNG or TIFF"),
)
"""(position in the file, bytes there, what the file then is)."""
_HEADERS = {
    b"\xff\xd8": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"RIFF": "WebP",
    b"BM": "BMP",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"II+\x00": "TIFF",
    b"MM\x00+": "TIFF",
}
_PEEK = 4096
"""Bytes at the start of a file that are examined to recognise a text."""


class BrokenImage(Exception):
    """A file that is no complete image. The message is the reason, in one line."""


def check_size(width: int, height: int) -> None:
    """Raise BrokenImage for an image of more than MAX_PIXELS."""
    if width * height > MAX_PIXELS:
        raise BrokenImage(f"{width} x {height} pixels, over the limit of {MAX_PIXELS}")


def describe_unread(data: bytes) -> str:
    """Return what a file is that Pillow does not open as one of FORMATS, and what to do."""
    if not data:
        return "empty (0 bytes); copy it again"
    if not data.strip(b"\0"):
        return "only zero bytes: a copy that did not end; copy it again"
    for position, magic, description in _MAGIC:
        if data[position : position + len(magic)] == magic:
            return description
    if description := _describe_text(data):
        return description
    if name := next((name for prefix, name in _HEADERS.items() if data.startswith(prefix)), ""):
        return (
            f"a {name} image by its first bytes, but its header is damaged or of an unknown kind; "
            f"copy it again, or {_SAVE}"
        )
    return f"no image of a format that is read here ({', '.join(FORMATS)}); {_SAVE}"


def _describe_text(data: bytes) -> str:
    """Return what a text is, or "" for other data."""
    head = data[:_PEEK]
    encoding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    text = head.decode(encoding, errors="ignore")
    if not text or any(ord(letter) < 32 and letter not in "\t\n\v\f\r\x1b" for letter in text):
        return ""
    if len(text.encode(encoding)) < len(head) - 4:  # other bytes than letters; the cut may divide one letter
        return ""
    start = text.lstrip().lower()
    if "annex/objects/" in start.partition("\n")[0].replace("\\", "/"):
        return "a pointer of git-annex, not the image; run `git annex get` where it came from"
    if start.startswith(("<!doctype html", "<html", "<head", "<body")) or "<html" in start[:1000]:
        return "a web page (HTML), perhaps of a login or an error; download the image again"
    if "<svg" in start:
        return f"an SVG drawing; {_SAVE}"
    if start.startswith("<"):
        return "an XML text, perhaps a server's error; download the image again"
    return "a text, not an image; leave it out or copy the image again"
