import errno
import multiprocessing
import os
import pickle
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fieldmarks.data import decoding, pixels
from fieldmarks.data.decoding import ImageError, UnreadableImages, decode, target_size, unreadable
from fieldmarks.data.pixels import PixelCache


def gradient(height: int, width: int) -> np.ndarray:
    """A smooth colour picture in which every corner differs."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return np.stack([255 * x, 255 * y, 127 * (x + 1 - y)], axis=-1).round().astype(np.uint8)


def save(path: Path, array_or_image, **options) -> Path:
    image = (
        array_or_image
        if isinstance(array_or_image, Image.Image)
        else Image.fromarray(array_or_image)
    )
    image.save(path, **options)
    return path


@pytest.fixture
def photographs(tmp_path) -> list[Path]:
    """Files of several kinds and shapes, in two folders."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    grey = Image.fromarray(gradient(50, 41)).convert("L")
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        save(tmp_path / "a" / "wide.jpg", gradient(40, 60)),
        save(tmp_path / "a" / "grey.png", grey),
        save(tmp_path / "b" / "tall.png", gradient(90, 30)),
        save(tmp_path / "b" / "panorama.png", gradient(20, 100)),
        save(tmp_path / "b" / "turned.jpg", gradient(40, 70), exif=exif),
        save(tmp_path / "b" / "rgba.png", Image.fromarray(gradient(33, 33)).convert("RGBA")),
        save(tmp_path / "b" / "large.jpg", gradient(300, 400)),
    ]


def left_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.exists() else []


# ---- decode


def test_rgb_is_kept_as_it_is(tmp_path):
    array = gradient(20, 31)
    found = decode(save(tmp_path / "a.png", array), None)
    assert found.dtype == np.uint8 and np.array_equal(found, array) and found.flags.writeable


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("shorter_side", [None, 12])
def test_exif_rotation(tmp_path, orientation, suffix, shorter_side):
    # A picture stored so that following the remark brings it upright: each remark, written out by hand, undone.
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
    found = decode(path, shorter_side)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= (3 if shorter_side is None else 14)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_exif_remark_does_no_harm(tmp_path):
    path = save(
        tmp_path / "a.jpg", gradient(20, 30), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12"
    )
    assert decode(path, None).shape == (20, 30, 3)


def test_grey(tmp_path):
    array = gradient(20, 30)[..., 0]
    for suffix in ("png", "bmp"):
        found = decode(save(tmp_path / f"a.{suffix}", array), None)
        assert np.array_equal(found, np.repeat(array[..., None], 3, axis=2))
    one_bit = decode(save(tmp_path / "b.png", Image.fromarray(array > 127)), None)
    assert np.array_equal(one_bit[..., 1], np.where(array > 127, 255, 0))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_keeps_its_upper_half(tmp_path, suffix):
    values = (np.arange(600, dtype=np.uint32).reshape(20, 30) * 109).astype(np.uint16)
    found = decode(save(tmp_path / f"a.{suffix}", values), None)
    assert np.array_equal(found, np.repeat((values // 256)[..., None], 3, axis=2).astype(np.uint8))


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
        found = decode(save(tmp_path / f"a.{suffix}", rgba, **options), None)
        assert np.abs(found.astype(int) - expected).max() <= 1
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
    found = decode(save(tmp_path / "a.jpg", image, quality=95), 10)
    assert found.shape == (10, 15, 3) and np.abs(found[5, 5].astype(int) - [255, 0, 0]).max() <= 5


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
    found = decode(save(tmp_path / "a.png", stripes), 16)
    assert 115 <= found[:, 2:-2].min() <= found[:, 2:-2].max() <= 140


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
    whole = save(tmp_path / "whole.jpg", noise).read_bytes()
    png = save(tmp_path / "whole.png", gradient(60, 60)).read_bytes()
    files = {
        "truncated.jpg": whole[: len(whole) // 2],
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


# ---- cache


def same(one: PixelCache, paths: list[Path], shorter_side: int) -> None:
    """Everything a cache gives, against decode()."""
    expected = [decode(path, shorter_side) for path in paths]
    assert len(one) == len(paths) and one.sizes.tolist() == [
        list(array.shape[:2]) for array in expected
    ]
    assert one.sizes.dtype == torch.long
    for index, array in enumerate(expected):
        assert np.array_equal(one[index], array) and one[index].dtype == np.uint8
    chosen = [2, 0, 2, 5, -1]
    canvas, sizes = one.batch(torch.tensor(chosen))
    assert canvas.dtype == torch.uint8 and canvas.is_contiguous()
    assert canvas.shape == (5, 3, *sizes.max(0).values.tolist())
    naive = torch.zeros_like(canvas)
    for place, index in zip(naive, chosen):
        array = torch.from_numpy(expected[index]).permute(2, 0, 1)
        place[:, : array.shape[1], : array.shape[2]] = array
    assert torch.equal(canvas, naive) and sizes.tolist() == [
        list(expected[index].shape[:2]) for index in chosen
    ]


@pytest.mark.parametrize("shorter_side", [1, 16, 45])
def test_cached_streamed_and_decoded_pixels_are_equal(photographs, tmp_path, shorter_side):
    same(PixelCache.open(photographs, shorter_side, tmp_path / "cache"), photographs, shorter_side)
    same(
        PixelCache.open(photographs, shorter_side, tmp_path / "cache", verify=True),
        photographs,
        shorter_side,
    )
    with pytest.warns(UserWarning, match="more than limit_bytes"):
        streamed = PixelCache.open(photographs, shorter_side, tmp_path / "other", limit_bytes=10)
    assert streamed.file is None
    same(streamed, photographs, shorter_side)


def test_built_once(photographs, tmp_path, monkeypatch):
    calls = []
    first = PixelCache.open(
        photographs, 16, tmp_path / "cache", progress=lambda *at: calls.append(at)
    )
    assert calls == [(done, 7) for done in range(1, 8)] and left_in(tmp_path / "cache") == [
        first.file.name
    ]
    monkeypatch.setattr(decoding, "decode", None)
    again = PixelCache.open(photographs, 16, tmp_path / "cache", progress=pytest.fail)
    assert again.file == first.file and np.array_equal(again[3], first[3])


def test_another_size_order_or_change_is_another_cache(photographs, tmp_path):
    files = {PixelCache.open(photographs, side, tmp_path / "cache").file for side in (16, 17)}
    files.add(PixelCache.open(photographs[::-1], 16, tmp_path / "cache").file)
    save(photographs[0], gradient(41, 60))
    changed = PixelCache.open(photographs, 16, tmp_path / "cache")
    files.add(changed.file)
    assert len(files) == 4
    same(changed, photographs, 16)


def test_default_folder(photographs, tmp_path, monkeypatch):
    monkeypatch.setenv("FIELDMARKS_CACHE", str(tmp_path / "there"))
    assert PixelCache.open(photographs, 8).file.parent == tmp_path / "there" / "pixels"
    monkeypatch.delenv("FIELDMARKS_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert (
        PixelCache.open(photographs, 8).file.parent
        == tmp_path / "home" / ".cache" / "fieldmarks" / "pixels"
    )


def test_empty_set_and_empty_batch(photographs, tmp_path):
    empty = PixelCache.open([], 16, tmp_path)
    assert len(empty) == 0 and empty.sizes.shape == (0, 2)
    for cache in (empty, PixelCache.open(photographs, 16, tmp_path)):
        canvas, sizes = cache.batch([])
        assert canvas.shape == (0, 3, 0, 0) and sizes.shape == (0, 2)
    with pytest.raises(IndexError):
        cache[7]
    with pytest.raises(IndexError):
        cache.batch([0, 7])
    assert len(list(cache)) == 7


@pytest.mark.parametrize("damage", ["truncated", "empty", "longer", "header", "foreign"])
def test_a_damaged_cache_is_rebuilt_with_a_warning(photographs, tmp_path, damage):
    file = PixelCache.open(photographs, 16, tmp_path / "cache").file
    content = file.read_bytes()
    broken = {
        "truncated": content[:-1],
        "empty": b"",
        "longer": content + b"x",
        "foreign": b"x" * len(content),
        "header": content[:90] + bytes([content[90] ^ 1]) + content[91:],
    }[damage]
    file.write_bytes(broken)
    with pytest.warns(UserWarning, match="is damaged .* built again") as warned:
        same(PixelCache.open(photographs, 16, tmp_path / "cache"), photographs, 16)
    assert len(warned) == 1 and "\n" not in str(warned[0].message)
    assert file.read_bytes() == content and left_in(tmp_path / "cache") == [file.name]


def test_verify_finds_a_damaged_pixel(photographs, tmp_path):
    file = PixelCache.open(photographs, 16, tmp_path / "cache").file
    content = file.read_bytes()
    file.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PixelCache.open(photographs, 16, tmp_path / "cache")
    with pytest.warns(UserWarning, match="large.jpg do not agree with their checksum"):
        PixelCache.open(photographs, 16, tmp_path / "cache", verify=True)
    assert file.read_bytes() == content


@pytest.mark.parametrize("limit_bytes", [1 << 30, 1])
def test_unreadable_images_are_named_in_one_error_and_nothing_is_left(
    photographs, tmp_path, limit_bytes
):
    bad = []
    for number in range(12):
        bad.append(tmp_path / f"bad{number}.jpg")
        bad[-1].write_bytes(b"no image")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(
            UnreadableImages, match="12 of 19 images cannot be read .fetch them again"
        ) as error:
            PixelCache.open(
                [*photographs[:2], *bad, *photographs[2:]],
                16,
                tmp_path / "cache",
                limit_bytes=limit_bytes,
            )
    assert [fault.path for fault in error.value.faults] == bad
    assert "bad9.jpg: not an image; ..." in str(error.value) and "bad10.jpg" not in str(error.value)
    assert left_in(tmp_path / "cache") == []


def test_missing_and_damaged_images_are_in_the_same_error(photographs, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    paths = [tmp_path / "absent.jpg", *photographs, tmp_path / "bad.jpg"]
    with pytest.raises(
        UnreadableImages, match="2 of 9 images .*absent.jpg: no such file; .*bad.jpg: not an image$"
    ):
        PixelCache.open(paths, 16, tmp_path / "cache")
    assert left_in(tmp_path / "cache") == []


def test_errors_survive_a_process_border(tmp_path):
    error = UnreadableImages([ImageError(tmp_path, "no such file")], of=3)
    found = pickle.loads(pickle.dumps(error))
    assert str(found) == str(error) and found.faults[0].path == tmp_path


@pytest.mark.parametrize("limit_bytes", [1 << 30, 0])
@pytest.mark.filterwarnings("ignore:no pixel cache")
def test_wrong_size(photographs, tmp_path, limit_bytes):
    with pytest.raises(ValueError, match="shorter_side must be at least 1 pixel, not 0"):
        PixelCache.open(photographs, 0, tmp_path / "cache", limit_bytes=limit_bytes)
    assert left_in(tmp_path / "cache") == []


class FullDisk:
    """A file on a disk that takes `room` bytes more."""

    def __init__(self, handle, room: int) -> None:
        self.handle, self.room = handle, room

    def write(self, data) -> int:
        self.room -= memoryview(data).nbytes
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.handle.write(data)

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.handle.close()

    def __getattr__(self, name):
        return getattr(self.handle, name)


def replace_new_files(monkeypatch, stand_in) -> None:
    """Let `stand_in` open what the cache writes; what it reads is opened as ever."""
    opened = lambda file, mode: stand_in(file) if "x" in mode else open(file, mode)  # noqa: E731
    monkeypatch.setattr(pixels, "open", opened, raising=False)


@pytest.mark.parametrize("room", [0, 3000, 10_000])
def test_a_full_disk_is_one_clear_line_and_leaves_nothing(photographs, tmp_path, monkeypatch, room):
    replace_new_files(monkeypatch, lambda file: FullDisk(open(file, "xb"), room))
    with pytest.raises(
        OSError, match="pixel cache in .* cannot be written .No space left"
    ) as error:
        PixelCache.open(photographs, 16, tmp_path / "cache")
    assert (
        error.value.errno == errno.ENOSPC
        and "FIELDMARKS_CACHE" in str(error.value)
        and "\n" not in str(error.value)
    )
    assert left_in(tmp_path / "cache") == []


def test_a_real_full_disk(photographs, tmp_path, monkeypatch):
    # /dev/full takes no byte: the same path through the operating system, without a stand-in.
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    replace_new_files(monkeypatch, lambda file: open("/dev/full", "r+b", buffering=0))
    with pytest.raises(OSError) as error:
        PixelCache.open(photographs, 16, tmp_path / "cache")
    assert error.value.errno == errno.ENOSPC


def test_a_folder_that_cannot_be_written_means_streaming(photographs, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.warns(
        UserWarning, match="no pixel cache: .* cannot be written .*; images are decoded"
    ) as warned:
        streamed = PixelCache.open(photographs, 16, tmp_path / "file" / "cache")
    assert len(warned) == 1 and "\n" not in str(warned[0].message)
    same(streamed, photographs, 16)


def test_streaming_reads_all_images_only_the_first_time(photographs, tmp_path):
    calls = []
    for _ in range(2):
        with pytest.warns(UserWarning, match="no pixel cache"):
            cache = PixelCache.open(
                photographs,
                16,
                tmp_path / "cache",
                limit_bytes=1,
                progress=lambda *at: calls.append(at),
            )
        same(cache, photographs, 16)
    assert len(calls) == len(photographs) and left_in(tmp_path / "cache") == [
        f"{pixels.cache_key(photographs, 16)}.sizes"
    ]


def test_limit_counts_the_decoded_bytes(photographs, tmp_path):
    total = sum(decode(path, 16).nbytes for path in photographs)
    assert PixelCache.open(photographs, 16, tmp_path / "a", limit_bytes=total).file is not None
    with pytest.warns(UserWarning, match="limit_bytes"):
        assert PixelCache.open(photographs, 16, tmp_path / "b", limit_bytes=total - 1).file is None


def test_an_interrupted_build_leaves_nothing(photographs, tmp_path):
    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        PixelCache.open(photographs, 16, tmp_path / "cache", progress=stop)
    assert left_in(tmp_path / "cache") == []


def test_what_a_killed_builder_left_is_swept_away(photographs, tmp_path):
    dead, alive = tmp_path / ".0123.npy.dead.npy", tmp_path / ".0123.npy.alive.npy"
    for part, age in ((dead, 7200), (alive, 10)):
        part.write_bytes(b"x")
        os.utime(part, (time.time() - age,) * 2)
    PixelCache.open(photographs, 16, tmp_path)
    assert not dead.exists() and alive.exists()


def _open_at_once(barrier, paths, folder, results):
    barrier.wait()
    cache = PixelCache.open(paths, 24, folder, progress=lambda *at: time.sleep(0.02))
    results.put((cache.file.name, [cache[index].sum() for index in range(len(cache))]))


def test_two_processes_build_the_same_cache_at_once(photographs, tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    builders = [
        context.Process(
            target=_open_at_once, args=(barrier, photographs, tmp_path / "cache", results)
        )
        for _ in range(2)
    ]
    for builder in builders:
        builder.start()
    found = [results.get(timeout=60) for _ in builders]
    for builder in builders:
        builder.join(60)
        assert builder.exitcode == 0
    assert found[0] == found[1] and left_in(tmp_path / "cache") == [found[0][0]]
    same(PixelCache.open(photographs, 24, tmp_path / "cache", verify=True), photographs, 24)


def test_a_mapped_cache_outlives_its_replacement(photographs, tmp_path):
    first = PixelCache.open(photographs, 16, tmp_path)
    before = first[0]
    pixels._build(first.file, photographs, 16, None, None)
    assert np.array_equal(first[0], before)


def test_read_from_threads(photographs, tmp_path):
    cache = PixelCache.open(photographs, 16, tmp_path)
    expected, _ = cache.batch(range(7))
    with ThreadPoolExecutor(8) as pool:
        assert all(
            torch.equal(canvas, expected) for canvas, _ in pool.map(cache.batch, [range(7)] * 100)
        )
