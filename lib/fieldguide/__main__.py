"""python -m fieldguide: draws birds, garments, twins of them, a plate or a shop window."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from PIL import Image

from fieldguide import draw_plate, draw_window, make_fieldguide, make_twins, make_wardrobe
from fieldguide.pictures import JPEG_QUALITY

# Options of a command: name and help; type and default are those of the function it calls.
BIRDS = {
    "classes": "species",
    "images": "images of each species",
    "size": "pixels of a side",
    "seed": "the same seed gives the same bytes",
    "difficulty": "standard or hard: how alike species are, how rough the photographs",
}
GARMENTS = {
    "items": "garments",
    "outfits": "outfits in each of the two versions",
    "shots": "pictures of each garment",
    "size": "pixels of a side",
    "seed": "the same seed gives the same bytes",
}
TWINS = {
    "pairs": "pairs of pictures",
    "exchange": "mark: of a bird; scene: behind it; attribute: of a garment; backdrop: behind it",
    "classes": "species; with attribute or backdrop: garments",
    "size": "pixels of a side",
    "seed": "the guide's or the wardrobe's; the same seed gives the same bytes",
    "difficulty": "the guide's",
    "workers": "processes that draw; the files are the same",
}
PLATE = {
    "classes": "species of the guide",
    "seed": "the guide's",
    "difficulty": "the guide's",
    "families": "rows of portraits",
    "siblings": "species in a row",
    "photographs": "rows of photographs",
    "first_family": "how many families are passed over",
    "width": "pixels",
}
WINDOW = {
    "items": "garments of the wardrobe",
    "seed": "the wardrobe's",
    "columns": "garments in a row",
    "shots": "pictures of each garment",
    "width": "pixels",
    "first": "how many garments of each category are passed over",
}


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"fieldguide: {message} (python -m fieldguide --help)\n")


class Progress:
    """One line on stderr, rewritten on a terminal; elsewhere a line for each tenth."""

    def __init__(self):
        self.tenths = 0
        self.open = False  # the line is not ended yet

    def __call__(self, done: int, total: int) -> None:
        line = f"drawing: {done:,} of {total:,} images"
        if sys.stderr.isatty():
            print(f"\r{line}", end="", file=sys.stderr, flush=True)
            self.open = True
        elif 10 * done // total > self.tenths:
            self.tenths = 10 * done // total
            print(line, file=sys.stderr, flush=True)

    def end(self) -> None:
        if self.open:
            print(file=sys.stderr)
            self.open = False


def birds(folder: Path, progress: Progress, options: dict) -> str:
    made = make_fieldguide(folder, progress=progress, **options)
    classes, images, size = options["classes"], options["images"], options["size"]
    return f"{classes:,} species, {classes * images:,} images of {size} x {size} px in {made}"


def garments(folder: Path, progress: Progress, options: dict) -> str:
    made = make_wardrobe(folder, progress=progress, **options)
    items, shots, size = options["items"], options["shots"], options["size"]
    return (
        f"{items:,} garments, {items * shots:,} images of {size} x {size} px, "
        f"{2 * options['outfits']:,} outfits in {made}"
    )


def twins(folder: Path, progress: Progress, options: dict) -> str:
    made = make_twins(folder, progress=progress, **options)
    size, what = options["size"], options["exchange"]
    return f"{options['pairs']:,} pairs of {size} x {size} px, another {what} in each, in {made}"


def plate(file: Path, progress: Progress, options: dict) -> str:
    return _save(draw_plate(**options), file)


def window(file: Path, progress: Progress, options: dict) -> str:
    return _save(draw_window(**options), file)


def _save(picture, file: Path) -> str:
    image = Image.fromarray(picture)
    try:
        image.save(file, quality=JPEG_QUALITY)  # other formats do not read it
    except OSError as error:
        raise ValueError(f"cannot write {file} ({error.strerror or error})") from None
    return f"{image.width} x {image.height} px in {file}"


def parser() -> argparse.ArgumentParser:
    top = Parser(prog="python -m fieldguide", description="Draws birds and garments.")
    commands = top.add_subparsers(
        dest="command", required=True, metavar="COMMAND", title="commands"
    )

    def command(run: Callable, draw: Callable, options: dict, target: str, summary: str) -> None:
        own = commands.add_parser(
            run.__name__, help=summary, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        own.set_defaults(run=run, options=list(options))
        own.add_argument("target", metavar=target, type=Path)
        parameters = inspect.signature(draw).parameters
        for name, text in options.items():
            default = parameters[name].default
            flag = f"--{name.replace('_', '-')}"
            own.add_argument(flag, type=type(default), default=default, help=text)

    command(birds, make_fieldguide, BIRDS, "DIR", "a data set of birds, CUB-200-2011 layout")
    command(garments, make_wardrobe, GARMENTS, "DIR", "outfits, Polyvore and In-shop layouts")
    command(twins, make_twins, TWINS, "DIR", "pairs of pictures that differ in one thing")
    command(plate, draw_plate, PLATE, "FILE", "a page of a field guide, as a picture")
    command(window, draw_window, WINDOW, "FILE", "a shop window of garments, as a picture")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """0: drawn; 1: could not be written; 2: wrong input. One line on stderr says what is wrong."""
    given = parser().parse_args(arguments)
    progress = Progress()
    try:
        options = {name: getattr(given, name) for name in given.options}
        summary = given.run(given.target, progress, options)
    except (ValueError, FileExistsError) as error:
        code, message = 2, str(error)
    except OSError as error:  # a full disk, say
        code, message = 1, str(error.strerror or error)
    except KeyboardInterrupt:
        code, message = 130, "stopped, nothing was written"
    else:
        progress.end()
        print(summary)
        return 0
    progress.end()
    print(f"fieldguide: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
