"""The private parts of aac-metrics that candidates' CIDEr-D is composed of."""

from importlib import import_module
from importlib.metadata import version

import numpy as np
import pytest
from aac_metrics.functional import cider_d

from models.metrics.cider_d import UnsupportedLibraryError, cider_d_of_candidates

REFERENCES = [
    ["a man speaks", "someone speaks", "a man is speaking while a bird is chirping in the background"],
    ["rain is falling hard on a surface"],
    ["a dog barks near a road while rain falls"],
]


def test_the_parts_were_read_in_this_version() -> None:
    """Another release may compose the metric differently: compare `cider_d_of_candidates` with it, then name it."""
    assert version("aac-metrics").split(".")[:2] == ["0", "6"]


def test_values_are_those_of_the_public_function() -> None:
    by_rank = [["a man is speaking", "rain falls", "a dog barks"], ["a bird sings", "rain falls hard", ""]]
    flat = [text for clip in zip(*by_rank, strict=True) for text in clip]
    found = cider_d_of_candidates(flat, [0, 0, 1, 1, 2, 2], REFERENCES)
    for rank, texts in enumerate(by_rank):
        np.testing.assert_array_equal(found[rank::2], cider_d(texts, REFERENCES)[1]["cider_d"])


def test_a_missing_part_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(import_module("aac_metrics.functional.cider_d"), "__similarity")
    with pytest.raises(UnsupportedLibraryError, match=r"aac-metrics 0\.6.*__similarity"):
        cider_d_of_candidates(["rain"], [0], REFERENCES)
