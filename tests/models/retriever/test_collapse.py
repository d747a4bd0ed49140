"""Embeddings that are all but alike are found, whatever their scale and number."""

import numpy as np
import pytest

from models.retriever import collapse
from models.retriever.collapse import ALIKE, FEWEST, collapse_warnings, mean_cosine, mean_cosines


def spread(number: int, width: float) -> np.ndarray:
    """Rows around one direction, at distances of about `width`."""
    rng = np.random.default_rng(0)
    return (np.ones(32) / np.sqrt(32) + width * rng.normal(size=(number, 32)) / np.sqrt(32)).astype(np.float32)


@pytest.mark.parametrize("width", [0.01, 0.5, 2.0])
def test_it_is_the_mean_over_pairs_in_blocks_and_at_any_scale(width: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = spread(50, width)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    expected = (unit @ unit.T)[~np.eye(50, dtype=bool)].mean()
    assert mean_cosine(rows) == pytest.approx(expected, abs=1e-6)
    monkeypatch.setattr(collapse, "ROWS_AT_ONCE", 7)
    assert mean_cosine(1000 * rows * np.linspace(1, 2, 50)[:, None]) == pytest.approx(expected, abs=1e-6)
    assert mean_cosine(np.concatenate([rows, np.zeros((3, 32))])) == pytest.approx(expected, abs=1e-6)


def test_what_has_collapsed_is_named() -> None:
    values = mean_cosines(text_cosine=spread(100, 0.05), audio_cosine=spread(100, 2.0))
    assert values["audio_cosine"] < 0.5 < ALIKE < values["text_cosine"]
    (warning,) = collapse_warnings(values | {"map@10": 0.02})
    assert warning.startswith("the embeddings of texts are all but alike (mean cosine 0.99")
    assert not collapse_warnings({"map@10": 0.02}), "trained by an earlier version"


def test_few_items_do_not_tell() -> None:
    assert list(mean_cosines(text_cosine=spread(FEWEST, 0.0), audio_cosine=spread(FEWEST - 1, 0.0))) == ["text_cosine"]
    assert np.isnan(mean_cosine(spread(1, 0.0)))
