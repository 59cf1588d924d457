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

from fieldmarks import decoding
from fieldmarks.data import pixels
from fieldmarks.data.pixels import PixelCache
from fieldmarks.decoding import ImageError, UnreadableImages, decode
from fieldmarks.files import atomic
from helpers.full_disk import FULL_DISKS
from helpers.pictures import gradient, save


def left_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.exists() else []


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
    for place, index in zip(naive, chosen, strict=True):
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
    rows = [4, 0, 6, 1, 3, 5, 4]
    for cache in (PixelCache.open(photographs, shorter_side, tmp_path / "cache"), streamed):
        part = cache.subset(range(7)).subset(torch.tensor(rows))
        same(part, [photographs[row] for row in rows], shorter_side)


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
    pixels_end = np.load(file, mmap_mode="r").nbytes + 128  # after the header
    last = content[pixels_end - 1]
    file.write_bytes(content[: pixels_end - 1] + bytes([last ^ 1]) + content[pixels_end:])
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
    result = pickle.loads(pickle.dumps(error))
    assert str(result) == str(error) and result.faults[0].path == tmp_path


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
    opened = lambda file, mode: stand_in(file) if "w" in mode else open(file, mode)
    monkeypatch.setattr(pixels, "open", opened, raising=False)


@pytest.mark.parametrize("room", [0, 3000, 10_000])
def test_a_full_disk_is_one_clear_line_and_leaves_nothing(photographs, tmp_path, monkeypatch, room):
    replace_new_files(monkeypatch, lambda file: FullDisk(open(file, "wb"), room))
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


@pytest.mark.parametrize("disk, told", FULL_DISKS)
def test_a_full_disk_costs_no_more_than_the_same_again(photographs, tmp_path, disk, told):
    # A file that may not grow is no reason either to decode all images each time.
    with pytest.raises(OSError, match=f"pixel cache in .* cannot be written .{told}.; "), disk():
        PixelCache.open(photographs, 16, tmp_path / "cache")
    assert left_in(tmp_path / "cache") == []
    same(PixelCache.open(photographs, 16, tmp_path / "cache"), photographs, 16)


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


def test_a_damaged_note_of_sizes_is_made_again(photographs, tmp_path):
    for _ in range(2):
        with pytest.warns(UserWarning, match="no pixel cache"):
            cache = PixelCache.open(photographs, 16, tmp_path, limit_bytes=1)
        same(cache, photographs, 16)
        (note,) = tmp_path.glob("*.sizes")
        content = note.read_bytes()
        note.write_bytes(content[:140] + bytes([content[140] ^ 1]) + content[141:])


def test_the_file_is_a_numpy_array_of_all_pixels(photographs, tmp_path):
    cache = PixelCache.open(photographs, 16, tmp_path)
    planes = [decode(path, 16).transpose(2, 0, 1).ravel() for path in photographs]
    assert np.array_equal(np.load(cache.file, mmap_mode="r"), np.concatenate(planes))
    assert cache.file.name == f"{pixels.cache_key(photographs, 16)}.npy"


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
    dead = tmp_path / ".0123.npy.00c0ffee.npy"
    dead.write_bytes(b"x")
    with atomic(tmp_path / "4567.npy") as alive:
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
    result = [results.get(timeout=60) for _ in builders]
    for builder in builders:
        builder.join(60)
        assert builder.exitcode == 0
    assert result[0] == result[1] and left_in(tmp_path / "cache") == [result[0][0]]
    same(PixelCache.open(photographs, 24, tmp_path / "cache", verify=True), photographs, 24)


def test_a_mapped_cache_outlives_its_replacement(photographs, tmp_path):
    first = PixelCache.open(photographs, 16, tmp_path)
    before = first[0]
    pixels._build(first.file, pixels._decoded(photographs, 16))
    assert np.array_equal(first[0], before)


def test_read_from_threads(photographs, tmp_path):
    cache = PixelCache.open(photographs, 16, tmp_path)
    expected, _ = cache.batch(range(7))
    with ThreadPoolExecutor(8) as pool:
        assert all(
            torch.equal(canvas, expected) for canvas, _ in pool.map(cache.batch, [range(7)] * 100)
        )
