"""Pictures are known by what is in them: every kind is written here, and read or named."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from fieldmarks.decoding import ImageError, decode
from fieldmarks.picture_kinds import READABLE, sort_files
from helpers.pictures import gradient, save

LOSSLESS = {
    "PNG": {},
    "BMP": {},
    "TIFF": {},
    "GIF": {},
    "PPM": {},
    "WEBP": {"lossless": True},
    "JPEG2000": {},
}
LOSSY = {"JPEG": {"quality": 98}, "MPO": {"quality": 98}, "AVIF": {"quality": 98}, "HEIF": {}}
OTHERS = {
    "notes.txt": b"P1 is the first patient\n",
    "Thumbs.db": bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600),
    "table.csv": b"image,label\na.jpg,1\n",
    "page.html": b"<html><svg></svg></html>",
    "film.mp4": b"\0\0\0\x18ftypmp42" + bytes(100),
    "BMW.md": b"BMW is a make of cars, and this is no bitmap at all.\n",
    "empty": b"",
    "program": b"MZ\x90\0" + bytes(100),
}


def entry(tag, kind, count, value):
    return struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")


def raw_like(tags, sub_tags=()):
    """A little-endian TIFF: a thumbnail of 8 x 8 grey pixels, and a directory below it."""
    pixels = 8
    below = pixels + 64
    maker = below + 6 + 12 * len(sub_tags)
    first = maker + 20
    short = lambda value: struct.pack("<H", value)
    long = lambda value: struct.pack("<I", value)
    entries = {
        256: (3, 1, short(8)),
        257: (3, 1, short(8)),
        258: (3, 1, short(8)),
        259: (3, 1, short(1)),
        262: (3, 1, short(1)),
        271: (2, 6, long(maker)),
        273: (4, 1, long(pixels)),
        277: (3, 1, short(1)),
        278: (3, 1, short(8)),
        279: (4, 1, long(64)),
    }
    if sub_tags:
        entries[330] = (4, 1, long(below))
    entries |= {tag: (3, 1, short(value)) for tag, value in tags}
    directory = struct.pack("<H", len(entries))
    directory += b"".join(entry(tag, *entries[tag]) for tag in sorted(entries)) + long(0)
    lower = struct.pack("<H", len(sub_tags))
    lower += b"".join(entry(tag, 3, 1, short(value)) for tag, value in sub_tags) + long(0)
    content = b"II*\0" + long(first) + bytes(range(64)) + lower
    return content.ljust(maker, b"\0") + b"NIKON\0".ljust(20, b"\0") + directory


RAWS = {
    "a.nef": (raw_like([], [(262, 32803)]), "NIKON"),
    "compressed.nef": (raw_like([], [(259, 34713), (262, 1)]), "NIKON"),
    "a.arw": (raw_like([], [(259, 32767)]), "NIKON"),
    "linear.dng": (raw_like([(50706, 257)]), "DNG"),
    "mosaic.tif": (raw_like([(262, 32803)]), "NIKON"),
    "a.cr2": (b"II*\0\x10\0\0\0CR\x02\0" + bytes(200), "Canon CR2"),
    "a.cr3": (b"\0\0\0\x18ftypcrx " + bytes(200), "Canon CR3"),
    "a.raf": (b"FUJIFILMCCD-RAW 0201" + bytes(200), "Fujifilm RAF"),
    "a.orf": (b"IIRO\x08\0\0\0" + bytes(200), "Olympus ORF"),
    "a.rw2": (b"IIU\0\x18\0\0\0" + bytes(200), "Panasonic RW2"),
}
DRAWN = {
    "a.jxl": (b"\xff\x0a" + bytes(40), "JPEG XL"),
    "boxed.jxl": (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    "a.exr": (b"\x76\x2f\x31\x01\x02\0\0\0", "OpenEXR"),
    "a.hdr": (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n", "Radiance"),
    "a.svg": (b'<?xml version="1.0"?>\n<svg xmlns="x">', "SVG"),
}


@pytest.mark.parametrize("form", [*LOSSLESS, *LOSSY])
@pytest.mark.parametrize("name", ["IMG_1", "photo.jfif", "x.dat", "wrong.jpg"])
def test_every_kind_is_read_whatever_its_name(tmp_path, form, name):
    array = gradient(40, 56)
    path = save(tmp_path / name, array, format=form, **{**LOSSLESS, **LOSSY}[form])
    assert READABLE.match(path.read_bytes())
    assert sort_files([path]) == ([path], {}, [])
    error = np.abs(decode(path, None).astype(int) - array)
    # GIF has 256 colours, and lossy files lose a little.
    assert error.max() <= {"GIF": 40}.get(form, 0 if form in LOSSLESS else 24), error.max()
    assert decode(path, 20).shape == (20, 28, 3)


@pytest.mark.parametrize("form", ["JPEG", "MPO", "AVIF", "HEIF", "TIFF", "PNG", "WEBP"])
def test_what_the_phone_wrote_sideways_stands_upright(tmp_path, form):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    stored = np.ascontiguousarray(gradient(24, 40).swapaxes(0, 1)[::-1])
    options = LOSSY.get(form, {}) | {"exif": exif.tobytes() if form == "HEIF" else exif}
    path = save(tmp_path / "x", stored, format=form, **options)
    assert np.abs(decode(path, None).astype(int) - gradient(24, 40)).mean() < 6


def test_the_first_picture_of_several_counts(tmp_path):
    for form in ("MPO", "HEIF", "TIFF", "GIF"):  # each writer leaves its settings in the image
        first, second = (Image.fromarray(np.full((9, 9, 3), v, np.uint8)) for v in (40, 200))
        first.save(tmp_path / form, format=form, save_all=True, append_images=[second])
        assert abs(int(decode(tmp_path / form, None).mean()) - 40) <= 2


@pytest.mark.parametrize("name", RAWS)
def test_raw_files_are_named_before_their_thumbnail_is_read(tmp_path, name):
    content, kind = RAWS[name]
    (path := tmp_path / name).write_bytes(content)
    says = rf"a raw camera file \({kind}\); develop it to JPEG or TIFF first"
    with pytest.raises(ImageError, match=says):
        decode(path, 64)
    if not name.endswith(".tif"):
        pictures, unreadable, others = sort_files([path])
        assert pictures == others == [] and unreadable[path].startswith("a raw camera file")


def test_the_thumbnail_of_a_raw_file_would_open_otherwise():
    """So that the test above is not about files that nothing reads."""
    for name in ("a.nef", "a.arw", "linear.dng"):
        assert Image.open(io.BytesIO(RAWS[name][0])).size == (8, 8)


def test_plain_tiffs_are_no_raw_files(tmp_path):
    array = gradient(30, 40)
    assert np.array_equal(
        decode(save(tmp_path / "plain.tif", array), None), array
    )  # a pyramid has directories below it, as a raw file does
    (tmp_path / "pyramid.tif").write_bytes(raw_like([], [(259, 1), (262, 1)]))
    assert decode(tmp_path / "pyramid.tif", None).shape == (8, 8, 3)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[271] = "NIKON"
    path = save(tmp_path / "made.tif", array, tiffinfo=tags, compression="tiff_lzw")
    assert np.array_equal(decode(path, None), array)


@pytest.mark.parametrize("name", DRAWN)
def test_pictures_that_cannot_be_read_are_named_by_their_kind(tmp_path, name):
    content, kind = DRAWN[name]
    for file in (name, "no_ending", "x.png"):
        (path := tmp_path / file).write_bytes(content)
        with pytest.raises(ImageError, match=kind):
            decode(path, 64)
    assert list(sort_files([tmp_path / name, tmp_path / "no_ending"]).unreadable) == [
        tmp_path / name,
        tmp_path / "no_ending",
    ]


def test_other_files_are_no_pictures(tmp_path):
    for name, content in OTHERS.items():
        (tmp_path / name).write_bytes(content)
    paths = [tmp_path / name for name in OTHERS]
    assert sort_files(paths) == ([], {}, paths)


def test_files_that_cannot_be_opened_are_named(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert sort_files([tmp_path / "link"]).unreadable == {
        tmp_path / "link": "No such file or directory"
    }


@pytest.mark.filterwarnings("ignore")  # Pillow's, of damaged remarks
def test_damaged_heads_are_told_without_a_crash(tmp_path):
    """Any damage to any kind is decoded or an ImageError of one line."""
    generator = np.random.default_rng(0)
    kinds = [content for content, _ in (*RAWS.values(), *DRAWN.values())]
    for form, options in {**LOSSLESS, **LOSSY}.items():
        Image.fromarray(gradient(24, 32)).save(stream := io.BytesIO(), format=form, **options)
        kinds.append(stream.getvalue())
    outcomes = []
    for content in kinds:
        for _ in range(12):
            damaged = bytearray(content[: int(generator.integers(1, len(content) + 1))])
            for at in generator.integers(0, min(len(damaged), 300), size=3):
                damaged[at] = generator.integers(256)
            (path := tmp_path / "x").write_bytes(damaged)
            assert sum(map(len, sort_files([path]))) == 1
            try:
                outcomes.append(decode(path, 16).shape[2] == 3)
            except ImageError as error:
                assert "\n" not in str(error) and str(error).startswith(str(path))
                outcomes.append(False)
    assert any(outcomes) and not all(outcomes)
