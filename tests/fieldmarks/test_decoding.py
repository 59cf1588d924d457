import numpy as np
import pytest
from PIL import Image

from fieldmarks import decoding
from fieldmarks.decoding import ImageError, decode, target_size, unreadable
from helpers.pictures import gradient, save


def test_rgb_is_kept_as_it_is(tmp_path):
    array = gradient(20, 31)
    result = decode(save(tmp_path / "a.png", array), None)
    assert result.dtype == np.uint8 and np.array_equal(result, array) and result.flags.writeable


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("shorter_side", [None, 12])
def test_exif_rotation(tmp_path, orientation, suffix, shorter_side):
    # Stored so that following the remark brings it upright: each one undone by hand.
    upright = gradient(24, 40)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: upright.swapaxes(0, 1)[::-1],
        7: upright.swapaxes(0, 1)[::-1, ::-1],
        8: upright.swapaxes(0, 1)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
    path = save(tmp_path / f"a.{suffix}", np.ascontiguousarray(stored), exif=exif, **options)
    expected = upright if shorter_side is None else gradient(12, 20)
    result = decode(path, shorter_side)
    assert result.shape == expected.shape
    assert np.abs(result.astype(int) - expected).max() <= (3 if shorter_side is None else 14)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_exif_remark_does_no_harm(tmp_path):
    path = save(
        tmp_path / "a.jpg", gradient(20, 30), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12"
    )
    assert decode(path, None).shape == (20, 30, 3)


def test_grey(tmp_path):
    array = gradient(20, 30)[..., 0]
    for suffix in ("png", "bmp"):
        result = decode(save(tmp_path / f"a.{suffix}", array), None)
        assert np.array_equal(result, np.repeat(array[..., None], 3, axis=2))
    one_bit = decode(save(tmp_path / "b.png", Image.fromarray(array > 127)), None)
    assert np.array_equal(one_bit[..., 1], np.where(array > 127, 255, 0))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_keeps_its_upper_half(tmp_path, suffix):
    values = (np.arange(600, dtype=np.uint32).reshape(20, 30) * 109).astype(np.uint16)
    result = decode(save(tmp_path / f"a.{suffix}", values), None)
    assert np.array_equal(result, np.repeat((values // 256)[..., None], 3, axis=2).astype(np.uint8))


def test_big_endian_sixteen_bit(tmp_path):
    values = (np.arange(600, dtype=np.uint32).reshape(20, 30) * 109).astype(">u2")
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 30 20 65535\n" + values.tobytes())
    assert np.array_equal(decode(path, None)[..., 0], (values // 256).astype(np.uint8))


def test_transparency_lies_on_white(tmp_path):
    array = gradient(20, 30)
    alpha = np.zeros((20, 30), np.uint8)
    alpha[:, 15:] = 255
    alpha[0] = 51
    rgba = Image.fromarray(np.dstack([array, alpha]))
    expected = np.where(alpha[..., None] > 0, array, 255)
    expected[0] = np.round(array[0] * 0.2 + 255 * 0.8)
    for suffix in ("png", "webp", "tif"):
        options = {"lossless": True, "exact": True} if suffix == "webp" else {}
        result = decode(save(tmp_path / f"a.{suffix}", rgba, **options), None)
        assert np.abs(result.astype(int) - expected).max() <= 1
    assert decode(save(tmp_path / "la.png", rgba.convert("LA")), None)[5, 2].tolist() == [
        255,
        255,
        255,
    ]


def test_palette_with_and_without_transparency(tmp_path):
    colours = np.zeros((20, 30), np.uint8)
    colours[:, 10:] = 1
    image = Image.fromarray(colours).convert("P")
    image.putpalette([255, 0, 0, 0, 0, 255])
    for suffix in ("png", "gif"):
        plain = decode(save(tmp_path / f"plain.{suffix}", image), None)
        assert plain[0, 0].tolist() == [255, 0, 0] and plain[0, 20].tolist() == [0, 0, 255]
        clear = decode(save(tmp_path / f"clear.{suffix}", image, transparency=0), None)
        assert clear[0, 0].tolist() == [255, 255, 255] and clear[0, 20].tolist() == [0, 0, 255]


def test_cmyk(tmp_path):
    image = Image.new("CMYK", (30, 20), (0, 255, 255, 0))
    result = decode(save(tmp_path / "a.jpg", image, quality=95), 10)
    assert result.shape == (10, 15, 3) and np.abs(result[5, 5].astype(int) - [255, 0, 0]).max() <= 5


@pytest.mark.parametrize(
    "height, width, shorter_side, expected",
    [
        (40, 60, 20, (20, 30)),
        (60, 40, 20, (30, 20)),
        (10, 10, 32, (32, 32)),
        (10, 17, 32, (32, 54)),
        (20, 100, 10, (10, 30)),
        (100, 20, 10, (30, 10)),
        (1, 50, 8, (8, 24)),
        (300, 301, 30, (30, 30)),
        (7, 5, 1, (1, 1)),
    ],
)
def test_the_shorter_side_is_as_asked_for(tmp_path, height, width, shorter_side, expected):
    assert target_size(width, height, shorter_side) == expected[::-1]
    for suffix in ("png", "jpg"):
        assert decode(
            save(tmp_path / f"a.{suffix}", gradient(height, width)), shorter_side
        ).shape == (*expected, 3)


def test_panoramas_are_cropped_about_their_centre(tmp_path):
    array = np.zeros((10, 90, 3), np.uint8)
    array[:, 30:60] = 255
    assert decode(save(tmp_path / "a.png", array), 10).min() == 255
    assert decode(tmp_path / "a.png", None).shape == (10, 90, 3)


def test_shrinking_is_antialiased(tmp_path):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    result = decode(save(tmp_path / "a.png", stripes), 16)
    assert 115 <= result[:, 2:-2].min() <= result[:, 2:-2].max() <= 140


def test_drafted_jpegs_stay_close_to_the_full_decoding(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    noise = Image.fromarray(generator.integers(0, 256, (60, 80, 3), dtype=np.uint8)).resize(
        (800, 600), Image.BICUBIC
    )
    path = save(tmp_path / "a.jpg", noise, quality=92)
    drafted = decode(path, 64).astype(int)
    monkeypatch.setattr(decoding, "DRAFT_MARGIN", 1e9)
    assert np.abs(drafted - decode(path, 64)).mean() < 2


def test_unreadable_files_are_named_with_the_reason(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    complete = save(tmp_path / "whole.jpg", noise).read_bytes()
    png = save(tmp_path / "whole.png", gradient(60, 60)).read_bytes()
    files = {
        "truncated.jpg": complete[: len(complete) // 2],
        "truncated.png": png[: len(png) // 2],
        "text.jpg": b"no image at all",
        "empty.jpg": b"",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    save(tmp_path / "float.tif", Image.new("F", (5, 5)))
    (tmp_path / "folder.jpg").mkdir()
    reasons = {
        "truncated.jpg": "truncated",
        "truncated.png": "truncated",
        "text.jpg": "not an image",
        "empty.jpg": "the file is empty",
        "absent.jpg": "no such file",
        "float.tif": "floating-point",
        "folder.jpg": "directory",
    }
    for name, reason in reasons.items():
        for shorter_side in (None, 16):
            with pytest.raises(ImageError, match=reason) as error:
                decode(tmp_path / name, shorter_side)
            assert error.value.path == tmp_path / name and str(error.value).count("\n") == 0
    monkeypatch.setattr(decoding, "MOST_PIXELS", 1000)
    with pytest.raises(ImageError, match="60 x 60 pixels.*bomb"):
        decode(tmp_path / "whole.jpg", 16)
    with pytest.raises(ValueError, match="at least 1 pixel"):
        decode(tmp_path / "whole.jpg", 0)


def test_pillows_own_bomb_error_is_an_image_error_too(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", gradient(60, 60))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match="bomb"):
        decode(path, 16)


def test_unreadable_lists_all_in_order(photographs, tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"x")
    calls = []
    paths = [tmp_path / "x.jpg", *photographs, tmp_path / "y.jpg"]
    faults = unreadable(paths, workers=2, progress=lambda *at: calls.append(at))
    assert [str(fault) for fault in faults] == [
        f"{paths[0]}: not an image",
        f"{paths[-1]}: no such file",
    ]
    assert calls == [(done, 9) for done in range(1, 10)]
