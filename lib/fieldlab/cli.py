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
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fine-grained image retrieval: make data sets, check them, and run the tables of papers.",
)
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
    except (
        Exception
    ) as error:  # what typer raises on a wrong command line has no public name in all its versions
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
        Literal["standard", "hard"], typer.Option(help="How alike species, how rough photographs.")
    ] = "standard",
) -> int:
    """Draw a field guide: birds in the layout of CUB-200-2011, with attributes, parts and masks."""
    from fieldguide.birds.guide import make_fieldguide as make_birds

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
    from fieldguide.garments.wardrobe import make_wardrobe as make_garments

    with _progress("drawing") as progress:
        made = make_garments(
            folder,
            outfits=outfits,
            items=items,
            shots=shots,
            size=size,
            seed=seed,
            progress=progress,
        )
    print(
        f"{items:,} garments, {items * shots:,} images of {size} x {size} px, {2 * outfits:,} outfits in {made}"
    )
    return 0


@app.command()
def check(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="cub, cars, aircraft, inshop, nabirds, vegfru, food101, fieldguide, wardrobe or folder.",
        ),
    ],
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="The data set's folder.")],
    images: Annotated[
        bool,
        typer.Option(
            "--images", help="Decode every image too, and name those that cannot be read."
        ),
    ] = False,
) -> int:
    """Hold a data set against its published counts. Exit code 1 where something differs."""
    from fieldmarks.data import catalog

    rows = catalog.check(dataset, root)
    print(f"{'':28}{'expected':>10}{'found':>10}")
    for what, expected, found, good in rows:
        wanted = "" if expected is None else f"{expected:,}"
        print(f"{what:28}{wanted:>10}{found:>10,}{'' if good else '  differs'}")
    faults = _unreadable(dataset, root) if images else []
    return 0 if all(row[3] for row in rows) and not faults else 1


def _unreadable(dataset: str, root: Path) -> list:
    from fieldmarks.data import catalog

    with _progress("decoding") as progress:
        faults = catalog.check_images(dataset, root, progress=progress)
    for path, reason in faults:
        print(f"{path}: {reason}")
    print(
        f"{len(faults):,} image{'s' * (len(faults) > 1)} cannot be read"
        if faults
        else "all images can be read"
    )
    return faults


@app.command()
def run(
    cards: Annotated[
        list[Path], typer.Argument(metavar="CARD", help="Lab cards, as labs/vapnet/table1.yaml.")
    ],
    profile: Annotated[
        str, typer.Option(help="One of the card's: paper, recipe, demo, smoke.")
    ] = "demo",
    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Overrule a parameter: epochs=5; for one data set: root.cub=DIR; or dataset=cub, seed=3.",
        ),
    ] = [],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where results go, a folder for each run.")
    ] = Path("runs"),
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Runs at a time on this machine, each with a GPU of its own where there are any.",
        ),
    ] = 1,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Of a Dask scheduler whose workers are to do it, as tcp://host:8786.",
        ),
    ] = None,
    retries: Annotated[
        int, typer.Option(min=0, metavar="N", help="How often a failed run is tried again.")
    ] = 0,
    time_limit: Annotated[
        str, typer.Option(metavar="TIME", help="For each run: 90s, 30m, 12h.")
    ] = "24h",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the plan and an estimate of the time.")
    ] = False,
) -> int:
    """Run lab cards: each row of a table with each seed. What is done already is not run again.

    The folder of an official data set is given by --set root.NAME=DIR, or in the variable FIELDMARKS_NAME (as in
    FIELDMARKS_CUB).
    """
    limit = _seconds(time_limit)
    if scheduler and workers > 1:
        raise ValueError(
            "--workers is for this machine, and a scheduler has workers of its own: give one of the two"
        )
    runs = _plan(cards, profile, out, settings)
    from fieldlab.sweep.estimate import expected_seconds

    expected = expected_seconds(runs)
    if dry_run:
        _show_plan(runs, expected, None if scheduler else workers)
        return 0
    from fieldlab.sweep.board import open_board
    from fieldlab.sweep.sweep import run_all

    with _pool(workers, scheduler) as pool:
        _make_folder(out)
        with open_board(runs, expected) as board:
            outcomes = run_all(runs, limit, board, retries, pool)
    return _sum_up(outcomes, out)


@app.command()
def report(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where runs are, as the --out of fieldmarks run.")
    ],
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The page; by default report.html in DIR.")
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Also measure again what each run saved. Exit code 1 where a written number differs.",
        ),
    ] = False,
) -> int:
    """Write a page on the finished runs in a folder: published and measured, claims tested, figures. Beside it as Markdown."""
    from fieldlab.report.report import gather, write_report
    from fieldlab.report.wording import SIGNS, heading, outcome

    found = gather(folder)
    files = write_report(found, html)
    for part in found.parts:
        if part.verdicts:
            print(heading(part.table))
        for verdict in part.verdicts:
            print(
                f"  {SIGNS[verdict.word]} {verdict.word}: {verdict.claim.text} ({outcome(verdict)})"
            )
    for file in files:
        print(file)
    return _verify(found) if verify else 0


def _verify(report) -> int:
    from fieldlab.report.verify import verify

    found = verify(report.runs, report.folder)
    for line in found.faults + found.beyond:
        print(line)
    count = found.equal + found.faulty + len(found.beyond)
    parts = [
        f"{found.equal} verified",
        f"{found.faulty} with differences",
        f"{len(found.beyond)} that cannot be verified",
    ]
    print(f"{count} run{'s' * (count != 1)}: {', '.join(parts)}")
    return 1 if found.faults else 0


@app.command()
def index(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="The folder of a finished run, whose network looks at the pictures."
        ),
    ],
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Pictures, also in folders below it.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where the index goes; by default FOLDER's name with .index, here."
        ),
    ] = None,
) -> int:
    """Index a folder of pictures, or bring its index up to date; a stopped one goes on from where it was."""
    from fieldmarks.experiments.models import load_model

    from fieldlab.own_pictures import PictureIndex

    out = out or Path(f"{folder.expanduser().absolute().name}.index")
    with _progress("looking at pictures") as progress:
        made = PictureIndex.update(out, load_model(run), folder, progress)
    for name, reason in made.unreadable.items():
        print(f"left out: {name}: {reason}")
    print(
        f"{len(made):,} pictures in {out}"
        + (f", {len(made.unreadable):,} left out" if made.unreadable else "")
    )
    return 0


@app.command()
def search(
    folder: Annotated[Path, typer.Argument(metavar="INDEX", help="What `fieldmarks index` made.")],
    image: Annotated[
        Path, typer.Argument(metavar="IMAGE", help="The picture to find others like.")
    ],
    k: Annotated[int, typer.Option("-k", min=1, help="How many to show.")] = 10,
    rank: Annotated[
        Path | None,
        typer.Option(
            metavar="INDEX",
            help="An index of the same folder by an open-set run, to put in order what INDEX finds.",
        ),
    ] = None,
    shortlist: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="How many of what INDEX finds --rank puts in order."),
    ] = 200,
    explain: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="A few-shot or in-shop run of PAN, to say why the first ten are alike.",
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="The page; by default search.html in INDEX."),
    ] = None,
) -> int:
    """Find the pictures most like one: in the terminal, and as a page.

    In up to three stages, each with its time: an index of codes makes a shortlist of very many pictures, --rank puts it in order,
    --explain names the concepts that the first ten share with the picture.
    """
    from fieldmarks.experiments.models import load_model, load_pair_model

    from fieldlab.cascade import search as find
    from fieldlab.own_pictures import PictureIndex

    opened = [PictureIndex.open(each) for each in (folder, rank) if each]
    made = [(each, load_model(Path(each.about["run"]))) for each in opened]
    answer = find(
        image,
        *made[0],
        rank=made[1] if rank else None,
        explain=load_pair_model(explain) if explain else None,
        k=k,
        shortlist=shortlist,
    )
    for line in _in_lines(answer):
        print(line)
    print(_answer_page(answer, image, opened[0].pictures, page or folder / "search.html"))
    return 0


def _in_lines(answer):
    """What a search found, for the terminal."""
    for number, (hit, word) in enumerate(zip(answer.hits, answer.scores_in_words()), start=1):
        yield f"{number:3}  {word}  {hit.path}"
        if number <= len(answer.reasons) and (reason := answer.reasons[number - 1]):
            yield f"     similarity {reason.similarity:.2f}: " + ", ".join(
                f"{name} {value:.2f}" for name, value in reason.concepts if value >= 0.005
            )
    for stage in answer.stages:
        yield f"{1000 * stage.seconds:7.0f} ms  {stage.words}"
    for path in answer.gone:
        yield f"moved or removed since it was indexed: {path}"
    if answer.unranked:
        count = len(answer.unranked)
        yield (
            f"{count} picture{'s are' if count > 1 else ' is'} not in the index to rank by, first {answer.unranked[0]}: "
            "bring it up to date with fieldmarks index"
        )


def _answer_page(answer, image: Path, pictures: Path, page: Path) -> Path:
    from fieldmarks.data.decoding import ImageError, decode

    from fieldlab.page import Found, write_page

    def picture(path: Path):
        try:
            return decode(path, 220)
        except ImageError:
            return None

    reasons = [reason and (reason.similarity, reason.concepts) for reason in answer.reasons] + [
        None
    ] * len(answer.hits)
    found = [
        Found(picture(hit.path), str(hit.path.relative_to(pictures)), word, reason)
        for hit, word, reason in zip(answer.hits, answer.scores_in_words(), reasons)
    ]
    return write_page(
        page,
        (decode(image, 220), image.name),
        found,
        [(stage.words, stage.seconds) for stage in answer.stages],
    )


def _plan(cards: list[Path], profile: str, out: Path, settings: list[str]) -> list:
    """Everything is checked before the first run starts."""
    from fieldlab.cards.card import load_card
    from fieldlab.sweep.plan import plan

    loaded = {}
    for file in cards:
        card = load_card(file)
        if card.name in loaded:
            raise ValueError(
                f"two cards with the name {card.name}: '{loaded[card.name].file}' and '{card.file}'"
            )
        loaded[card.name] = card
    return [each for card in loaded.values() for each in plan(card, profile, out, settings)]


def _pool(workers: int, scheduler: str | None):
    """Where runs are executed. A cluster is set up only where one is needed, as that takes seconds."""
    from contextlib import nullcontext

    if not scheduler and workers == 1:
        return nullcontext()
    from fieldlab.sweep import cluster

    return cluster.connected(scheduler) if scheduler else cluster.embedded(workers)


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"no results can be written to '{out}': {error.strerror}; give another folder by --out"
        ) from None


def _show_plan(runs: list, expected: list, workers: int | None) -> None:
    from fieldlab.sweep.estimate import in_words
    from fieldlab.sweep.runner import finished

    done = [finished(each) is not None for each in runs]
    shared = {
        name: value
        for name, value in runs[0].parameters.items()
        if all(name in each.parameters and each.parameters[name] == value for each in runs)
    }
    for each, earlier in zip(runs, done):
        own = "  ".join(
            f"{name}={value}"
            for name, value in each.parameters.items()
            if name not in shared and name not in ("dataset", "seed")
        )
        print(f"{'earlier' if earlier else 'to run':8}{each.name}  {own}\n{'':8}-> {each.folder}")
    print("all: " + "  ".join(f"{name}={value}" for name, value in shared.items()))
    print(in_words([seconds for seconds, earlier in zip(expected, done) if not earlier], workers))


def _sum_up(outcomes: list, out: Path) -> int:
    words = {
        "done": "done",
        "earlier": "done earlier",
        "failed": "failed",
        "stopped": "left; the same command goes on from here",
    }
    counts = {state: sum(outcome.state == state for outcome in outcomes) for state in words}
    parts = [f"{count} {words[state]}" for state, count in counts.items() if count]
    print(f"{len(outcomes)} run{'s' * (len(outcomes) != 1)}: {', '.join(parts)}; results in {out}")
    return 130 if counts["stopped"] else 1 if counts["failed"] else 0


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
        with Progress(
            console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
        ) as bars:
            bar = bars.add_task(what, total=None)
            yield lambda done, total: bars.update(bar, completed=done, total=total)

    return shown()
