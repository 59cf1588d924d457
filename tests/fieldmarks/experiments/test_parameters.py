from dataclasses import dataclass

import pytest
from fieldmarks.experiments.parameters import from_arguments, from_notebook, parse


@dataclass(frozen=True)
class Example:
    epochs: int = 3
    lr: float = 0.1
    grids: tuple[int, ...] = (2, 4)
    cosine: bool = False
    root: str = ""

    def __post_init__(self):
        if self.epochs < 0:
            raise ValueError(f"epochs is {self.epochs}: it must not be negative")


def test_plain_values_become_the_dataclass():
    assert parse(Example, {"epochs": 5, "lr": 1, "grids": [3], "root": "x"}) == Example(
        5, 1.0, (3,), False, "x"
    )


@pytest.mark.parametrize(
    "values, message",
    [
        ({"epoch": 3}, "unknown parameter 'epoch': did you mean 'epochs'?"),
        ({"zzz": 3}, "unknown parameter 'zzz': the parameters are epochs, lr, grids, cosine, root"),
        ({"epochs": "3"}, "parameter 'epochs' is '3': it must be a whole number"),
        ({"epochs": 2.5}, "parameter 'epochs' is 2.5: it must be a whole number"),
        ({"epochs": True}, "parameter 'epochs' is True: it must be a whole number"),
        ({"lr": "fast"}, "parameter 'lr' is 'fast': it must be a number"),
        ({"cosine": 1}, "parameter 'cosine' is 1: it must be true or false"),
        ({"grids": 4}, "parameter 'grids' is 4: it must be a list of numbers"),
        ({"root": 4}, "parameter 'root' is 4: it must be text"),
        ({"epochs": -1}, "epochs is -1: it must not be negative"),
        ({"root": object}, "give numbers, text"),
    ],
)
def test_what_is_wrong_and_what_would_be_right(values, message):
    with pytest.raises(ValueError) as caught:
        parse(Example, values)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def notebook(**extra):
    return {
        "__name__": "__main__",
        "In": ["x"],
        "Out": {},
        "parse": parse,
        "_i": "",
        "epochs": 1,
        "lr": 0.5,
        "grids": [2],
        "cosine": True,
        "root": "",
        **extra,
    }


def test_a_notebooks_globals_are_read():
    assert from_notebook(Example, notebook()) == Example(1, 0.5, (2,), True, "")


def test_a_misspelt_injected_parameter_fails():
    with pytest.raises(ValueError, match="did you mean 'epochs'"):
        from_notebook(Example, notebook(epoch=7))


def test_a_parameter_that_the_notebook_lost_is_named():
    values = notebook()
    del values["lr"], values["root"]
    with pytest.raises(ValueError, match="does not set lr, root"):
        from_notebook(Example, values)


def test_scratch_variables_do_not_disturb_a_second_run_of_the_cell():
    values = notebook()
    from_notebook(Example, values)
    values |= {"scratch": 3, "epochs": 9}
    assert from_notebook(Example, values).epochs == 9


def test_arguments_of_a_command_line():
    words = ["epochs=4", "lr=1e-3", "grids=[2, 8]", "cosine=true", "root=1"]
    assert from_arguments(Example, words) == {
        "epochs": 4,
        "lr": 1e-3,
        "grids": [2, 8],
        "cosine": True,
        "root": "1",
    }
    with pytest.raises(ValueError, match="'epochs' is not of the form name=value"):
        from_arguments(Example, ["epochs"])
