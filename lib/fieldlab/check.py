"""A data set on disk against the published counts, and its images one by one."""

from contextlib import suppress
from pathlib import Path

from fieldmarks.data.catalog import OFFICIAL, layout
from fieldmarks.decoding import unreadable


def check(name: str, root: Path) -> list[tuple[str, int | None, int, bool]]:
    """Compare a data set's lists with the published counts: rows (what, expected, found, ok), where
    expected is None, and ok true, if nothing is published. Opens no image; raises as
    `catalog.load`."""
    images, official = layout(name)(Path(root)), OFFICIAL.get(name)
    split, parts = images.split or [], ("train", "test")
    rows: list[tuple] = [("images", official and official.images, len(images))]
    rows.append(("classes", official and official.classes, len(images.class_names)))
    for part in official.split if official else dict.fromkeys(split):
        rows.append((f"split: {part}", official and official.split[part], split.count(part)))
    if len(images.class_names) >= 2:
        for part, half in zip(parts, images.open_split(), strict=True):
            count, classes = getattr(official, part, (None, None))
            rows.append((f"open split: {part}", count, len(half)))
            rows.append((f"open split: {part} classes", classes, len(half.labels.unique())))
    if official and official.closed:
        halves = (), ()  # a partial copy may leave no closed split
        with suppress(ValueError):
            halves = images.closed_split()
        counts = official.closed, official.split["test"]
        for part, count, half in zip(parts, counts, halves, strict=True):
            rows.append((f"closed split: {part}", count, len(half)))
    return [(what, expected, count, expected in (None, count)) for what, expected, count in rows]


def check_images(name: str, root: Path, workers=None, progress=None) -> list[tuple[Path, str]]:
    """Decode every image in full, and name those that cannot be read as (path, reason). Raises as
    `catalog.load`; `workers` and `progress` as `decoding.in_order`."""
    faults = unreadable(layout(name)(Path(root)).paths, workers, progress)
    return [(fault.path, fault.reason) for fault in faults]
