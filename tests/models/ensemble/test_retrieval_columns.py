"""Columns of captioners are what they say, and do not move clips that they did not score ahead of those they did."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from models.captioner.model import Captioner
from models.ensemble.retrieval_columns import (
    CaptionerColumns,
    best_clips,
    caption_embeddings,
    captions_of,
    likelihood_column,
    spread,
)
from models.ensemble.retrieval_fusion import normalise_rows
from models.generation import likelihood
from models.generation.candidates import encoded_batches, search
from models.generation.proposals import ClipInputs
from models.settings import BeamConfig

from ..conftest import CAPTIONS
from ..retriever.test_model import KINDS, make

Clips = tuple[list[np.ndarray], np.ndarray]
BEST = np.array([[0, 3], [4, 1], [3, 2], [1, 0]])


def alone(captioner: Captioner, clips: Clips, query: str, clip: int) -> float:
    """The likelihood of one query given one clip."""
    codes, embeddings = clips
    ((_, states, mask),) = encoded_batches(captioner, codes[clip : clip + 1], embeddings[clip : clip + 1], 1)
    return float(captioner.log_likelihood(states, mask, [query])[0])


@pytest.mark.parametrize("texts_at_once", [1, 64])
def test_likelihood_is_that_of_each_query_and_clip_alone(
    captioner: Captioner, clips: Clips, monkeypatch: pytest.MonkeyPatch, texts_at_once: int
) -> None:
    monkeypatch.setattr(likelihood, "TEXTS_AT_ONCE", texts_at_once)
    column = likelihood_column(captioner, *clips, CAPTIONS, BEST)
    assert column.shape == (4, 5)
    for row, query in enumerate(CAPTIONS):
        expected = np.array([alone(captioner, clips, query, clip) for clip in BEST[row]])
        assert np.ptp(expected) > 1e-3
        expected -= expected.mean()  # what the captioner thinks of the text, whatever the clip
        np.testing.assert_allclose(column[row, BEST[row]], expected, atol=1e-5)
        others = np.delete(column[row], BEST[row])
        assert (others == column[row, BEST[row]].min()).all()


@pytest.mark.parametrize("normalisation", ["none", "z", "rank", "rrf"])
def test_a_clip_without_a_value_is_never_put_before_one_that_has_one(normalisation: str) -> None:
    rng = np.random.default_rng(0)
    best = np.argsort(rng.random((6, 30)), axis=1)[:, :5]
    column = normalise_rows(spread(rng.normal(size=(6, 5)), best, 30), normalisation)
    scored = np.take_along_axis(column, best, axis=1).min(1, keepdims=True)
    unscored = np.ones(column.shape, bool)
    np.put_along_axis(unscored, best, False, axis=1)
    assert (np.where(unscored, column, -np.inf) <= scored + 1e-12).all()


def test_the_best_clips_are_those_of_all_retrievers_on_one_scale() -> None:
    similarities = {"a": np.array([[0.0, 1.0, 2.0, 3.0]]), "b": 1000 * np.array([[3.0, 2.0, 1.0, -9.0]])}
    assert best_clips(similarities, 3).tolist() == [[2, 1, 3]]
    assert best_clips(similarities, 50).shape == (1, 4)


def test_captions_of_a_clip_are_those_of_every_captioner(captioner: Captioner, clips: Clips) -> None:
    codes, embeddings = clips
    beam = BeamConfig(beams=2, max_tokens=8)
    said = captions_of({"a": captioner, "b": captioner}, ClipInputs(codes, {"a": embeddings, "b": embeddings}), beam)
    assert [len(of_clip) for of_clip in said] == [2] * 5
    for clip in range(5):
        ((_, states, mask),) = encoded_batches(captioner, codes[clip : clip + 1], embeddings[clip : clip + 1], 1)
        assert said[clip] == [search(captioner, states, mask, beam)[0][0].text] * 2


def test_the_caption_column_is_a_mean_of_cosines() -> None:
    retriever = make(*KINDS[1]).eval()
    captions = [[CAPTIONS[0], "rain"], [CAPTIONS[2]], [CAPTIONS[1], CAPTIONS[1], "wind"]]
    of_clips = {"bge": caption_embeddings(retriever, captions)}
    columns = CaptionerColumns(CAPTIONS, {"bge": retriever}, {}, ClipInputs([], {}), of_clips)
    column = columns.column("bge/captions", {}, 1)
    with torch.no_grad():
        for row, query in enumerate(CAPTIONS):
            for clip, texts in enumerate(captions):
                cosines = [float(retriever.embed_text([query])[0] @ retriever.embed_text([text])[0]) for text in texts]
                assert column[row, clip] == pytest.approx(np.mean(cosines), abs=1e-5)
    assert all(abs(one - other) > 1e-4 for one, other in pairwise(column[0]))
