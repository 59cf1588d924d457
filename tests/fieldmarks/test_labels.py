import numpy as np
import pytest
import torch

from fieldmarks.data.imageset import ImageSet
from fieldmarks.evaluation.code_usage import distinct_class_codes
from fieldmarks.evaluation.episodes import sample_episodes
from fieldmarks.evaluation.hamming import mean_average_precision
from fieldmarks.evaluation.outfits import area_under_curve
from fieldmarks.evaluation.recall import recall_at_k
from fieldmarks.labels import integer_labels
from fieldmarks.methods.fcaenet import similarity
from fieldmarks.methods.hash_functions import SDH
from fieldmarks.methods.pairs import pairs_from_labels

TEXT = list("aabbcc")
EMBEDDINGS = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
CODES = EMBEDDINGS.sign()


@pytest.mark.parametrize(
    "labels",
    [
        [3, 0, 2],
        (3, 0, 2),
        np.array([3, 0, 2], np.uint16),
        np.array([2, 0, 3])[::-1],
        torch.tensor([3, 0, 2], dtype=torch.int32),
    ],
)
def test_integers_of_any_kind(labels):
    result = integer_labels(labels)
    assert result.dtype == torch.int64 and result.tolist() == [3, 0, 2]


@pytest.mark.parametrize(
    "labels, says",
    [
        (None, "y is missing"),
        (["a", "b"], "integers, got text \\('a'\\): number the classes"),
        (np.array(["a", "b"], object), "text \\('a'\\)"),
        ([1, "b"], "text \\('1'\\)|text \\('b'\\)"),
        ([1, None], "integers, got object: leave out images of unknown class"),
        ([1.0, 2.0], "integers, got float64"),
        (torch.tensor([1.0, np.nan]), "integers, got torch.float32"),
        (torch.tensor([True, False]), "integers, got torch.bool"),
        ([True, False], "integers, got bool"),
        ([2**70, 1], "integers, got object"),
        ([[1], [2, 3]], "must have shape \\(2,\\), got \\(2, 0\\)"),
        ([[1, 2]], "must have shape \\(2,\\), got \\(1, 2\\)"),
        ([1, 2, 3], "must have shape \\(2,\\), got \\(3,\\)"),
    ],
)
def test_what_is_wanted_is_said_in_one_line(labels, says):
    with pytest.raises(ValueError, match=f"^y (must be |must have )?.*{says}|{says}") as raised:
        integer_labels(labels, "y", 2)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "use",
    [
        lambda: recall_at_k(EMBEDDINGS, TEXT),
        lambda: recall_at_k(EMBEDDINGS, [0] * 6, EMBEDDINGS, TEXT),
        lambda: mean_average_precision(CODES, TEXT, CODES, TEXT),
        lambda: sample_episodes(TEXT, 2, 1, 1, 3, torch.Generator()),
        lambda: distinct_class_codes(CODES, TEXT),
        lambda: similarity(TEXT, TEXT),
        lambda: SDH(8).fit(EMBEDDINGS, TEXT),
        lambda: pairs_from_labels(TEXT, 2, torch.Generator()),
    ],
)
def test_text_is_refused_wherever_labels_are_given(use):
    with pytest.raises(ValueError, match="labels must be integers, got text \\('a'\\)"):
        use()


def test_text_in_an_image_set_and_under_a_curve(tmp_path):
    with pytest.raises(ValueError, match=r"labels must be a LongTensor \(N,\), not list \(6,\)"):
        ImageSet("birds", [tmp_path] * 6, TEXT, ["a", "b", "c"])
    with pytest.raises(ValueError, match="1 .positive. or 0 .negative."):
        area_under_curve(torch.arange(6.0), TEXT)
