"""Pictures that tests of several folders read."""

from pathlib import Path

import pytest
from PIL import Image

from helpers.pictures import gradient, save


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
