"""The command `fieldmarks`. Exit code 0: done, 1: a run failed or a data set differs, 2: wrong input, 130: Ctrl-C.

What a command needs is imported when it runs, so that --help and a mistyped option answer at once.
"""
import re
import sys
import warnings
from pathlib import Path
from typing import Annotated, Literal

import typer

# Without rich's help pages: importing what they need takes longer than all the rest of --help.
app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True, add_completion=False, context_settings={"help_option_names": ["-h", "--help"]},
    help="Fine-grained image retrieval: make data sets, check them, and run the tables of papers.")
make = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Make a generated data set.")
app.add_typer(make, name="make")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return app(args=arguments, prog_name="fieldmarks", standalone_mode=False) or 0
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        return _wrong(_in_words(error))
    except Exception as error:  # what typer raises on a wrong command line has no public name in all its versions
        if not hasattr(error, "format_message"):
            raise
        return _wrong(error.format_message()) if error.format_message() else 2


def _wrong(message: str) -> int:
    print(f"fieldmarks: {message}", file=sys.stderr)
    return 2


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"'{error.filename}': {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    if not issubclass(category, (DeprecationWarning, FutureWarning)):
        print(f"fieldmarks: warning: {message}", file=sys.stderr)


@make.command("fieldguide")
def make_fieldguide(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    classes: Annotated[int, typer.Option(help="Species.")] = 100,
    images: Annotated[int, typer.Option(help="Images of each species.")] = 20,
    size: Annotated[int, typer.Option(help="Pixels of a side.")] = 128,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    difficulty: Annotated[
        Literal["standard", "hard"], typer.Option(help="How alike species, how rough photographs.")] = "standard",
) -> int:
    """Draw a field guide: birds in the layout of CUB-200-2011, with attributes, parts and masks."""
    from .data.generated.fieldguide import make_fieldguide as make_birds

    with _progress("drawing") as progress:
        made = make_birds(folder, classes, images, size, seed, difficulty, progress=progress)
    print(f"{classes} species, {classes * images:,} images of {size} x {size} px in {made}")
    return 0


@make.command("wardrobe")
def make_wardrobe(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    outfits: Annotated[int, typer.Option(help="Outfits, in each of the two versions.")] = 1000,
    items: Annotated[int, typer.Option(help="Garments.")] = 600,
    shots: Annotated[int, typer.Option(help="Pictures of each garment.")] = 4,
    size: Annotated[int, typer.Option(help="Pixels of a side.")] = 128,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
) -> int:
    """Draw a wardrobe: garments and outfits in the layouts of Polyvore Outfits and of In-shop Clothes Retrieval."""
    from .data.generated.wardrobe import make_wardrobe as make_garments

    with _progress("drawing") as progress:
        made = make_garments(folder, outfits=outfits, items=items, shots=shots, size=size, seed=seed, progress=progress)
    print(f"{items:,} garments, {items * shots:,} images of {size} x {size} px, {2 * outfits:,} outfits in {made}")
    return 0


@app.command()
def check(
    dataset: Annotated[str, typer.Argument(
        metavar="DATASET", help="cub, cars, aircraft, inshop, nabirds, vegfru, food101, fieldguide or folder.")],
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="The data set's folder.")],
    images: Annotated[bool, typer.Option(
        "--images", help="Decode every image too, and name those that cannot be read.")] = False,
) -> int:
    """Hold a data set against its published counts. Exit code 1 where something differs."""
    from .data import catalog

    rows = catalog.check(dataset, root)
    print(f"{'':28}{'expected':>10}{'found':>10}")
    for what, expected, found, good in rows:
        wanted = "" if expected is None else f"{expected:,}"
        print(f"{what:28}{wanted:>10}{found:>10,}{'' if good else '  differs'}")
    faults = _unreadable(dataset, root) if images else []
    return 0 if all(row[3] for row in rows) and not faults else 1


def _unreadable(dataset: str, root: Path) -> list:
    from .data import catalog

    with _progress("decoding") as progress:
        faults = catalog.check_images(dataset, root, progress=progress)
    for path, reason in faults:
        print(f"{path}: {reason}")
    print(f"{len(faults):,} image{'s' * (len(faults) > 1)} cannot be read" if faults else "all images can be read")
    return faults


@app.command()
def run(
    cards: Annotated[list[Path], typer.Argument(metavar="CARD", help="Lab cards, as labs/vapnet/table1.yaml.")],
    profile: Annotated[str, typer.Option(help="One of the card's: paper, recipe, demo, smoke.")] = "demo",
    settings: Annotated[list[str], typer.Option(
        "--set", metavar="KEY=VALUE",
        help="Overrule a parameter: epochs=5; for one data set: root.cub=DIR; or dataset=cub, seed=3.")] = [],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where results go, a folder for each run.")] = Path("runs"),
    time_limit: Annotated[str, typer.Option(metavar="TIME", help="For each run: 90s, 30m, 12h.")] = "24h",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the plan.")] = False,
) -> int:
    """Run lab cards: each row of a table with each seed. What is done already is not run again.

    The folder of an official data set is given by --set root.NAME=DIR, or in the variable FIELDMARKS_NAME (as in
    FIELDMARKS_CUB).
    """
    limit = _seconds(time_limit)
    runs = _plan(cards, profile, out, settings)
    from .labs import runner

    if dry_run:
        _show_plan(runs, runner.finished)
        return 0
    _make_folder(out)
    from .labs.board import open_board

    with open_board(runs) as board:
        outcomes = runner.run_all(runs, limit, board)
    return _sum_up(outcomes, len(runs), out)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where runs are, as the --out of fieldmarks run.")],
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="The page; by default report.html in DIR.")] = None,
) -> int:
    """Write a page that shows the finished runs in a folder."""
    from .labs.report import write_report

    print(write_report(folder, html))
    return 0


def _plan(cards: list[Path], profile: str, out: Path, settings: list[str]) -> list:
    """Everything is checked before the first run starts."""
    from .labs.card import load_card
    from .labs.plan import plan

    loaded = {}
    for file in cards:
        card = load_card(file)
        if card.name in loaded:
            raise ValueError(f"two cards with the name {card.name}: '{loaded[card.name].file}' and '{card.file}'")
        loaded[card.name] = card
    return [each for card in loaded.values() for each in plan(card, profile, out, settings)]


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"no results can be written to '{out}': {error.strerror}; give another folder by --out") from None


def _show_plan(runs: list, finished) -> None:
    shared = {name: value for name, value in runs[0].parameters.items()
              if all(name in each.parameters and each.parameters[name] == value for each in runs)}
    for each in runs:
        own = "  ".join(f"{name}={value}" for name, value in each.parameters.items()
                        if name not in shared and name not in ("dataset", "seed"))
        print(f"{'earlier' if finished(each) else 'to run':8}{each.name}  {own}\n{'':8}-> {each.folder}")
    print("all: " + "  ".join(f"{name}={value}" for name, value in shared.items()))


def _sum_up(outcomes: list, planned: int, out: Path) -> int:
    counts = {state: sum(outcome.state == state for outcome in outcomes) for state in ("done", "earlier", "failed")}
    words = {"done": "done", "earlier": "done earlier", "failed": "failed"}
    parts = [f"{count} {words[state]}" for state, count in counts.items() if count]
    stopped = bool(outcomes) and outcomes[-1].state == "stopped"
    if stopped:
        parts.append(f"{planned - sum(counts.values())} left; the same command goes on from here")
    print(f"{planned} run{'s' * (planned != 1)}: {', '.join(parts)}; results in {out}")
    return 130 if stopped else 1 if counts["failed"] else 0


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not found or float(found[1]) == 0:
        raise ValueError(f"--time-limit is '{text}': write it as 90s, 30m or 12h")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


def _progress(what: str):
    """A context that gives progress(done, total): a bar in a terminal, nothing elsewhere."""
    from contextlib import contextmanager

    from rich.console import Console
    from rich.progress import Progress

    @contextmanager
    def shown():
        with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bars:
            bar = bars.add_task(what, total=None)
            yield lambda done, total: bars.update(bar, completed=done, total=total)
    return shown()
