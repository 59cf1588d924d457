"""Names as people read them: of classes, of attributes, and of the concepts of PAN."""

from collections.abc import Sequence


def readable(name: str) -> str:
    """ "001.Black_footed_Albatross" -> "Black footed Albatross"."""
    number, dot, rest = name.partition(".")
    return (rest if dot and number.isdigit() else name).replace("_", " ")


def readable_attribute(name: str) -> str:
    """ "has_bill_shape::dagger" -> "bill shape: dagger"."""
    group, sign, value = name.removeprefix("has_").partition("::")
    return (f"{group}: {value}" if sign else name).replace("_", " ")


def concept_names(attributes=(), none_slot: bool = False, free: int = 0) -> list[str]:
    """Names of M concepts in the order of `PAN`; free ones, which have no name, are numbered."""
    numbered = (f"concept {number}" for number in range(1, free + 1))
    return [*attributes, *["none of these"] * none_slot, *numbered]


def names_of_concepts(head, attributes: Sequence[str] | None) -> list[str]:
    """`concept_names` of a `PAN` and of the attributes that supervise its first concepts."""
    named = [readable_attribute(name) for name in (attributes or [])[: head.attributes]]
    free = head.similarity.concept.out_features - head.attributes - head.none_slot
    return concept_names(named, head.none_slot, free)


def concept_groups(names: Sequence[str]) -> list[str] | None:
    """What concepts named "group: value" are about; None where no name is such."""
    if not any(": " in name for name in names):
        return None
    return [name.partition(": ")[0] if ": " in name else "free" for name in names]
