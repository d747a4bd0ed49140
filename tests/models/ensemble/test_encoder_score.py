"""The encoder score is the paper's cosine, which the undetermined scale of a learned metric does not reach."""

import numpy as np
import pytest
import torch

from models.ensemble import Reranking
from models.ensemble.candidate_table import CandidateTable, score_candidates
from models.ensemble.scores.base import Scorers
from models.generation.candidates import Candidate
from models.retriever.model import Retriever
from models.settings import EncoderScoring

from ..conftest import CAPTIONS
from ..retriever.test_model import KINDS, make

CLIPS = 40


@pytest.fixture
def retriever() -> Retriever:
    retriever = make(*KINDS[1]).eval()
    with torch.no_grad():
        retriever.metric.factor += 0.3 * torch.randn_like(retriever.metric.factor)
    return retriever


def scored(retriever: Retriever, encoder_score: EncoderScoring) -> CandidateTable:
    rng = np.random.default_rng(0)
    words = sorted({word for caption in CAPTIONS for word in caption.split()})
    proposed = [
        [Candidate(" ".join(rng.choice(words, 4)), rng.normal(-1, 0.3), 5) for _ in range(8)] for _ in range(CLIPS)
    ]
    audio = rng.normal(size=(CLIPS, 16)).astype(np.float32)
    audio /= np.linalg.norm(audio, axis=1, keepdims=True)
    scorers = Scorers({"bge": retriever}, {"bge": audio}, encoder_score=encoder_score)
    return score_candidates({"one": proposed}, scorers, ["encoder_score/bge", "decoder_score"])


def chosen_at(retriever: Retriever, encoder_score: EncoderScoring, scale: float) -> list[int]:
    """Return the choice of every clip by the paper's weights, with the metric at a scale."""
    with torch.no_grad():
        retriever.metric.factor *= scale
    paper = Reranking(weights={"bge": 0.7, "decoder": 0.3}, encoder_score=encoder_score)
    return paper.choose(scored(retriever, encoder_score)).tolist()


def test_the_choice_does_not_depend_on_the_scale_of_the_metric(retriever: Retriever) -> None:
    assert chosen_at(retriever, "cosine", 1.0) == chosen_at(retriever, "cosine", 0.3)
    retriever.metric.factor.data /= 0.3
    assert chosen_at(retriever, "distance", 1.0) != chosen_at(retriever, "distance", 0.3)


def test_each_is_what_it_says(retriever: Retriever) -> None:
    rng = np.random.default_rng(1)
    audio = rng.normal(size=(2, 16)).astype(np.float32)
    audio /= np.linalg.norm(audio, axis=1, keepdims=True)
    texts = ["a dog barks", "rain falls"]
    proposed = {"one": [[Candidate(text, -1.0, 3) for text in texts]] * 2}
    embedded = retriever.text_embeddings(texts)
    kinds: list[EncoderScoring] = ["cosine", "distance"]
    scorers = {kind: Scorers({"bge": retriever}, {"bge": audio}, encoder_score=kind) for kind in kinds}
    found = {kind: score_candidates(proposed, one).encoder_score["bge"] for kind, one in scorers.items()}
    for clip in range(2):
        for column, text in enumerate(embedded):
            dot = sum(float(a) * float(b) for a, b in zip(audio[clip], text, strict=True))
            assert found["cosine"][clip, column] == pytest.approx(dot, abs=1e-6)
            mapped = retriever.under_metric(np.stack([audio[clip], text]))
            assert found["distance"][clip, column] == pytest.approx(-np.linalg.norm(mapped[0] - mapped[1]), abs=1e-6)


def test_files_of_before_there_was_a_choice_mean_the_distance() -> None:
    before = {"weights": {"bge": 0.7, "decoder": 0.3}, "normalisation": "none", "fluency_threshold": 0.9}
    assert Reranking.model_validate(before).encoder_score == "distance"
    kept = Reranking(weights={"bge": 1.0}, encoder_score="cosine")
    assert Reranking.model_validate_json(kept.model_dump_json()) == kept
