from fieldmarks.show.style import height_of, wrap


def test_text_is_cut_to_its_room():
    name = "Black footed Albatross"
    assert wrap(name, width=10, size=7, lines=1) == name
    assert wrap(name, width=0.9, size=7, lines=3) == "Black footed\nAlbatross"
    assert wrap(name, width=0.9, size=7, lines=1) == "Black footed A\u2026"
    assert wrap("Honeycreepers", width=0.4, size=7, lines=2) == "Honey\u2026"
    assert wrap("", width=1, size=7, lines=2) == ""


def test_height_is_that_of_the_most_lines():
    assert height_of([]) == 0 < height_of(["a"]) < height_of(["a", "b\nc"]) == height_of(["b\nc"])
