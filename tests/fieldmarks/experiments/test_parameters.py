import dataclasses
import inspect
import json
from dataclasses import dataclass
from typing import Literal, get_args, get_origin

import pytest

from fieldmarks.checks import choices
from fieldmarks.data.augment import TrainingViews
from fieldmarks.experiments.experiment import experiment_class
from fieldmarks.experiments.parameters import (
    composed_of,
    from_arguments,
    from_notebook,
    options,
    parse,
)
from fieldmarks.methods.fcaenet import FCAENet
from fieldmarks.methods.pair_network import PairNetwork
from fieldmarks.methods.vapnet import VAPNet
from fieldmarks.training import Settings


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
    given = {"epochs": 5, "lr": 1, "grids": [3], "root": "x"}
    assert parse(Example, given) == Example(5, 1.0, (3,), False, "x")


@pytest.mark.parametrize(
    "values, message",
    [
        ({"epoch": 3}, "unknown parameter 'epoch': did you mean 'epochs'?"),
        ({"zzz": 3}, "unknown parameter 'zzz': there are epochs, lr, grids, cosine, root"),
        ({"epochs": "3"}, "parameter 'epochs' is '3': it must be a whole number"),
        ({"epochs": 2.5}, "parameter 'epochs' is 2.5: it must be a whole number"),
        ({"epochs": True}, "parameter 'epochs' is True: it must be a whole number"),
        ({"lr": "fast"}, "parameter 'lr' is 'fast': it must be a number"),
        ({"cosine": 1}, "parameter 'cosine' is 1: it must be true or false"),
        ({"grids": 4}, "parameter 'grids' is 4: it must be a list of numbers"),
        ({"root": 4}, "parameter 'root' is 4: it must be text"),
        ({"epochs": -1}, "epochs is -1: it must not be negative"),
        ({"root": object}, "give numbers, text"),
        ({"lr": float("nan")}, "parameter 'lr' is nan: it must be a number"),
    ],
)
def test_what_is_wrong_and_what_would_be_right(values, message):
    with pytest.raises(ValueError) as caught:
        parse(Example, values)
    assert message in str(caught.value) and "\n" not in str(caught.value)


# A notebook's cell, a command line


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


def test_a_parameter_that_the_notebook_does_not_set_takes_its_default():
    values = notebook()
    del values["lr"], values["root"]
    assert from_notebook(Example, values) == Example(1, 0.1, (2,), True, "")


def test_a_parameter_that_papermill_injects_counts_though_the_cell_does_not_show_it():
    values = notebook()
    del values["lr"]
    assert from_notebook(Example, values | {"lr": 0.7}).lr == 0.7


def test_scratch_variables_do_not_disturb_a_second_run_of_the_cell():
    values = notebook()
    from_notebook(Example, values)
    values |= {"scratch": 3, "epochs": 9}
    assert from_notebook(Example, values).epochs == 9


def test_arguments_of_a_command_line():
    given = ["epochs=4", "lr=1e-3", "grids=[2, 8]", "cosine=true", "root=1"]
    assert from_arguments(Example, given) == {
        "epochs": 4,
        "lr": 1e-3,
        "grids": [2, 8],
        "cosine": True,
        "root": "1",
    }
    with pytest.raises(ValueError, match="'epochs' is not of the form name=value"):
        from_arguments(Example, ["epochs"])


# Composed of options that have their home elsewhere


class Home:
    def __init__(
        self,
        network,
        classes: int,
        *,
        attributes: int = 256,
        rule: Literal["and", "or"] = "or",
        negative: Literal["balanced"] | float = "balanced",
        grids: tuple[int, ...] = (2, 4),
        hook: object = None,
    ):
        pass


def other_home(name: str, attributes: int = 7, rate: float = 0.5):
    pass


@composed_of(Home, other_home, rate=0.25, rule="and")
class Composed:
    size: int = 3
    grids: tuple[int, ...] = (8,)

    def __post_init__(self):
        choices(self)


def test_options_are_the_parameters_with_defaults_and_plain_types():
    assert list(options(Home)) == ["attributes", "rule", "negative", "grids"]
    assert list(options(other_home)) == ["attributes", "rate"]


def test_a_composed_class_has_its_own_fields_and_the_options_of_its_homes():
    fields = {field.name: field for field in dataclasses.fields(Composed)}
    assert set(fields) == {"size", "grids", "attributes", "rule", "negative", "rate"}
    given = Composed()
    assert given.size == 3 and given.negative == "balanced"
    assert given.attributes == 256  # the first home's
    assert given.grids == (8,)  # its own field counts
    assert (given.rate, given.rule) == (0.25, "and")  # the defaults that it names
    assert fields["rule"].type == Literal["and", "or"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        given.size = 4


def test_a_class_built_on_a_composed_one_may_change_its_defaults():
    @composed_of(other_home, attributes=9, size=5)
    class Further(Composed):
        more: bool = True

    given = Further()
    assert (given.attributes, given.size, given.rate, given.more) == (9, 5, 0.25, True)
    assert (Composed().attributes, Composed().size) == (256, 3)


def test_a_default_of_a_parameter_that_is_not_there_is_an_error():
    with pytest.raises(TypeError, match="no parameter 'atributes': did you mean 'attributes'"):

        @composed_of(Home, atributes=3)
        class Wrong:
            pass


@pytest.mark.parametrize("negative", ["balanced", -1.0, -1])
def test_a_choice_may_be_a_word_or_a_number(negative):
    assert parse(Composed, {"negative": negative}).negative == negative


@pytest.mark.parametrize(
    "values, message",
    [
        ({"rule": "nor"}, "rule.? is 'nor': it must be one of and, or"),
        ({"rule": 3}, "rule.? is 3: it must be one of and, or"),
        ({"negative": "minus"}, "negative.? is 'minus': it must be one of balanced or a number"),
        ({"negative": True}, "negative.? is True: it must be one of balanced or a number"),
    ],
)
def test_another_word_is_refused(values, message):
    with pytest.raises(ValueError, match=message) as caught:
        parse(Composed, values)
    assert "\n" not in str(caught.value)


def test_another_word_is_refused_in_python_too():
    with pytest.raises(ValueError, match="rule is 'nor': it must be one of and, or"):
        Composed(rule="nor")
    with pytest.raises(ValueError, match="negative is 'minus': it must be one of balanced"):
        Composed(negative="minus")


# The experiments' own


KINDS = ("open_set", "hashing", "outfits", "fewshot", "inshop")
HOMES = {
    "open_set": (VAPNet, TrainingViews),
    "hashing": (FCAENet, TrainingViews),
    "outfits": (PairNetwork,),
    "fewshot": (PairNetwork,),
    "inshop": (PairNetwork,),
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_option_is_missing(kind):
    """Whatever a method, the views and the loop can be told, a run can be told."""
    fields = {field.name: field for field in dataclasses.fields(experiment_class(kind).Parameters)}
    for home in (Settings, *HOMES[kind]):
        for name, option in inspect.signature(home).parameters.items():
            if option.default is not option.empty:
                assert name in fields, f"{home.__name__} has {name}"
                assert fields[name].type == option.annotation, name


@pytest.mark.parametrize("kind", KINDS)
def test_all_parameters_are_plain_values_with_defaults(kind):
    cls = experiment_class(kind).Parameters
    given = cls()
    for field in dataclasses.fields(cls):
        assert field.default is not dataclasses.MISSING or field.default_factory is dict
        members = get_args(field.type) if get_origin(field.type) is not Literal else (field.type,)
        for member in members or (field.type,):
            assert member in (bool, int, float, str, dict, ...) or get_origin(member) is Literal
    plain = json.loads(json.dumps(given.plain()))
    again = parse(cls, plain)
    assert again.identity() == given.identity() and again.folder() == given.folder()
    assert given.folder().name.startswith(f"{kind}-")
    assert cls(**{"seed": 1}).folder() != given.folder() == cls(device="cpu", card="x").folder()


@pytest.mark.parametrize("kind", KINDS)
def test_a_generated_data_set_counts_with_all_its_options(kind):
    cls = experiment_class(kind).Parameters
    default = cls().plain()["generated"]
    size = {"size": default["size"]}
    assert cls(generated=size).folder() == cls().folder() != cls(generated={"seed": 5}).folder()
    assert cls(generated={"seed": 5}).plain()["generated"] == {**default, "seed": 5}
    assert "generated" in cls(root="/x").plain() and cls(root="/x").plain()["generated"] == {}


@pytest.mark.parametrize("kind", KINDS)
def test_messages_tell_every_type_in_english(kind):
    for field in dataclasses.fields(experiment_class(kind).Parameters):
        with pytest.raises(ValueError) as caught:
            parse(experiment_class(kind).Parameters, {field.name: [{}]})
        message = str(caught.value)
        assert message.startswith(f"parameter '{field.name}' is [{{}}]: it must be "), message
        assert "<" not in message and "typing" not in message and "\n" not in message
