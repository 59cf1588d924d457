import json

import pytest
import torch
from PIL import Image

from fieldmarks import decoding
from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.readable import find_unreadable, without_unreadable
from fieldmarks.decoding import ImageError


@pytest.fixture
def images(tmp_path):
    """Three images of each of three classes; one is cut short, one is text, one is missing."""
    paths = [tmp_path / f"{number}.jpg" for number in range(9)]
    for path in paths:
        Image.effect_noise((30, 40), 60).convert("RGB").save(path)
    paths[1].write_bytes(paths[1].read_bytes()[:500])
    paths[2].write_text("no image")
    paths[6].unlink()
    labels = torch.arange(3).repeat_interleave(3)
    return ImageSet("birds", paths, labels, ["wren", "robin", "thrush"])


def test_what_cannot_be_read_is_left_out_and_counted_by_class(images):
    with pytest.warns(UserWarning) as warned:
        left, classes = without_unreadable(images, 16)
    assert left.paths == [images.paths[row] for row in (0, 3, 4, 5, 7, 8)]
    assert left.labels.tolist() == [0, 1, 1, 1, 2, 2] and left.class_names == images.class_names
    assert classes == {"wren": 2, "thrush": 1}
    says = "birds: 3 of 9 images cannot be read and are left out (2 of wren, 1 of thrush), first "
    assert str(warned[0].message).startswith(f"{says}{images.paths[1]}: ")
    assert without_unreadable(left, 16) == (left, {})


def test_a_class_that_loses_all_is_refused(images):
    images.paths[0].unlink()
    says = r"none of the 3 images of wren can be read: fetch them again, .* first .*0.jpg: no such"
    with pytest.raises(ValueError, match=says) as raised:
        without_unreadable(images, 16)
    assert "\n" not in str(raised.value)
    for path in images.paths[3:6]:
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="of wren can be read, nor of 1 more classes: fetch"):
        without_unreadable(images, 16)


def test_images_are_read_once_until_a_file_changes(images, monkeypatch):
    read, decode = [], decoding.decode
    monkeypatch.setattr(decoding, "decode", lambda p, side: read.append(p) or decode(p, side))
    first = find_unreadable(images.paths, 16)
    assert list(first) == [1, 2, 6] and len(read) == 9
    again = find_unreadable(images.paths, 16)
    assert [str(fault) for fault in again.values()] == [str(fault) for fault in first.values()]
    assert len(read) == 9
    Image.new("RGB", (30, 40)).save(images.paths[6])
    assert list(find_unreadable(images.paths, 16)) == [1, 2] and len(read) == 18


def test_a_drive_that_hiccups_is_not_remembered(images, monkeypatch):
    decode = decoding.decode

    def hiccup(path, side):
        if path == images.paths[0]:
            raise ImageError(path, "Input/output error") from OSError(5, "Input/output error")
        return decode(path, side)

    monkeypatch.setattr(decoding, "decode", hiccup)
    assert list(find_unreadable(images.paths, 16)) == [0, 1, 2, 6]
    monkeypatch.setattr(decoding, "decode", decode)
    assert list(find_unreadable(images.paths, 16)) == [1, 2, 6]


@pytest.mark.parametrize("content", ["", "[1]", '[[99, "gone"]]', "{}x"])
def test_a_damaged_note_is_made_again(images, content, tmp_path, monkeypatch):
    monkeypatch.setenv("FIELDMARKS_CACHE", str(tmp_path / "cache"))
    first = find_unreadable(images.paths, 16)
    (note,) = (tmp_path / "cache" / "pixels").glob("*.unreadable.json")
    assert [row for row, _ in json.loads(note.read_text())] == list(first)
    note.write_text(content)
    assert list(find_unreadable(images.paths, 16)) == list(first)
