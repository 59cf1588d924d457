"""Which files are pictures: by their first bytes, whatever they are called."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL.TiffImagePlugin import ImageFileDirectory_v2

# Files that end so are taken for pictures unopened, for on a network drive opening takes time;
# what is in them is found out when they are decoded.
ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
HEAD = 256  # bytes that tell a file's kind
READABLE = re.compile(
    rb"\xff\xd8\xff"  # JPEG, and MPO, several of them in a file
    rb"|\x89PNG\r\n|GIF8[79]a|BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0|RIFF....WEBP"
    rb"|II\*\0|MM\0\*|II\+\0|MM\0\+"  # TIFF
    rb"|....ftyp(?:avi[fs]|hei[cfmsx]|hev[cmsx]|mi[af][f1]|msf1)"  # AVIF, HEIC
    rb"|\0\0\0\x0cjP  |\xff\x4f\xff\x51"  # JPEG 2000
    rb"|P[1-6]\s+[#\d]|8BPS|qoif|DDS |\x01\xda[\0\x01][\x01\x02]",
    re.DOTALL,
)
UNREADABLE = {  # what looks like a picture and cannot be read
    "a JPEG XL file": re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "),
    "an OpenEXR file": re.compile(rb"\x76\x2f\x31\x01"),
    "a Radiance HDR file": re.compile(rb"#\?RADIANCE|#\?RGBE"),
    "an SVG drawing": re.compile(rb"\s*(?:<\?xml.*?|<!--.*?|<!DOCTYPE svg.*?)*<svg[\s>]", re.S),
}
RAW = {  # camera files with a signature of their own; others are TIFF, see `_raw_kind`
    "Canon CR3": re.compile(rb"....ftypcrx ", re.DOTALL),
    "Canon CR2": re.compile(rb"(?:II\*\0|MM\0\*)....CR", re.DOTALL),
    "Canon CRW": re.compile(rb"II\x1a\0....HEAPCCDR", re.DOTALL),
    "Fujifilm RAF": re.compile(rb"FUJIFILMCCD-RAW"),
    "Minolta MRW": re.compile(rb"\0MRM"),
    "Olympus ORF": re.compile(rb"IIR[OS]|MMOR"),
    "Panasonic RW2": re.compile(rb"IIU\0"),
    "Phase One IIQ": re.compile(rb"(?:II\*\0|MM\0\*)....IIII", re.DOTALL),
    "Sigma X3F": re.compile(rb"FOVb"),
}
COMPRESSION, PHOTOMETRIC, MAKER, SUB_IFDS, DNG_VERSION = 259, 262, 271, 330, 50706  # tags of TIFF
# Colour filter array and linear raw; what Nikon, Sony, Samsung and Pentax compress by.
RAW_PHOTOMETRIC, RAW_COMPRESSION = (32803, 34892), (34713, 32767, 32769, 32770, 32772, 65535)
MOST_DIRECTORIES = 32  # of one TIFF file


class Sorted(NamedTuple):
    """Files by what they are, each in the order given."""

    pictures: list[Path]
    unreadable: dict[Path, str]  # of a kind that cannot be read, or not to be opened: the reason
    others: list[Path]


def sort_files(files: Iterable[Path]) -> Sorted:
    """Tell pictures from other files. Whether a picture is damaged, decoding tells."""
    result = Sorted([], {}, [])
    for file in files:
        if file.name.lower().endswith(ENDINGS):
            result.pictures.append(file)
            continue
        try:
            with open(file, "rb") as stream:
                head, reason = stream.read(HEAD), why_unreadable(stream)
        except OSError as error:
            head, reason = b"", error.strerror
        if reason:
            result.unreadable[file] = reason
        else:
            (result.pictures if READABLE.match(head) else result.others).append(file)
    return result


def why_unreadable(stream: BinaryIO) -> str | None:
    """Why a picture of this kind cannot be read; None for other files. Leaves the stream at 0.

    Raw camera files come first: most are TIFF, of which an image library shows the thumbnail."""
    stream.seek(0)
    head = stream.read(HEAD)
    kind = next((name for name, signature in RAW.items() if signature.match(head)), None)
    if kind is None and head[:4] in (b"II*\0", b"MM\0*"):
        kind = _raw_kind(stream)
    stream.seek(0)
    if kind:
        return f"a raw camera file ({kind}); develop it to JPEG or TIFF first"
    kind = next((name for name, signature in UNREADABLE.items() if signature.match(head)), None)
    return kind and f"{kind}, a kind that cannot be read; save it as JPEG, PNG or TIFF"


def _raw_kind(stream: BinaryIO) -> str | None:
    """Whether a TIFF holds what a sensor saw: in any of its directories, or in those below them."""
    stream.seek(0)
    directory = ImageFileDirectory_v2(stream.read(8))
    offsets, maker, seen = [directory.next], "", set()
    while offsets and len(seen) < MOST_DIRECTORIES:
        offset = offsets.pop(0)
        if not offset or offset in seen:
            continue
        seen.add(offset)
        try:
            stream.seek(offset)
            directory.load(stream)
            values = {tag: directory.get(tag) for tag in (PHOTOMETRIC, COMPRESSION, SUB_IFDS)}
            maker = maker or " ".join(re.findall(r"[\w.-]+", str(directory.get(MAKER, "")))[:3])
            if DNG_VERSION in directory:
                return "DNG"
        except Exception:  # damaged: decoding will say what is wrong
            return None
        if values[PHOTOMETRIC] in RAW_PHOTOMETRIC or values[COMPRESSION] in RAW_COMPRESSION:
            return maker or "TIFF"
        below = values[SUB_IFDS] or ()
        offsets += [directory.next, *(below if isinstance(below, tuple) else (below,))]
    return None
