"""What finished runs saved, scored again: what claims are tested on, and what `fieldmarks report
--verify` checks the written numbers against."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fieldmarks.experiments.scores import Scores


class NothingSaved(ValueError):
    """Not a fault of the run."""


def measure_again(folder: Path, result: dict) -> "Scores":
    """Score what a finished run saved.

    Raises:
        ValueError: it cannot be done; one line that says why, without the folder.
        NothingSaved: runs of this kind save nothing that could be scored.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from fieldmarks.experiments.experiment import experiment_class

    try:
        kind = experiment_class(result["module"])
        file = Path(folder) / kind.saved_file
    except (KeyError, ValueError, AttributeError):
        name = result.get("experiment") or "a run of unknown kind"
        raise NothingSaved(f"{name} saves no embeddings or codes that are known here") from None
    try:
        return kind.measure(load_file(file), result["parameters"])
    except FileNotFoundError:
        raise ValueError(f"{file.name} is not there") from None
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file.name} cannot be read: {error}") from None
    except KeyError as error:
        raise ValueError(f"{file.name} lacks {error.args[0]!r}") from None


def means_over(result: dict) -> str:
    """What a run's metrics are means over, in a word."""
    return "episodes" if result.get("experiment") == "fewshot" else "queries"
