"""Random streams do not depend on each other."""

from itertools import combinations

import numpy as np

from fieldguide.streams import Streams

NAMES = ("look", "pose", "scene/background", "scene/perch", "paint/breast", "paint/belly", "camera")


def test_a_stream_gives_the_same_however_much_others_gave():
    streams = Streams((0, 3, 7))
    alone = {name: streams(name).random(5) for name in NAMES}
    for number, name in enumerate(NAMES):
        streams(name).random(number)
    for name in reversed(NAMES):
        assert (streams(name).random(5) == alone[name]).all()


def test_names_and_keys_give_different_numbers():
    keys = ((0,), (0, 0), (1,), (0, 1), (1, 0), (0, 1, 0), (2**40, 3))
    drawn = [Streams(key)(name).random(3) for key in keys for name in NAMES]
    for one, other in combinations(drawn, 2):
        assert (one != other).all()


def test_an_exchanged_group_alone_gives_others():
    streams = Streams((4, 2))
    other, third = streams.exchange("scene"), streams.exchange("scene", 2)
    for name in NAMES:
        first, second, last = (one(name).random(4) for one in (streams, other, third))
        if name.startswith("scene"):
            assert (first != second).all() and (second != last).all() and (first != last).all()
        else:
            assert np.array_equal(first, second) and np.array_equal(first, last)
