"""Pooling captioners' candidates and laying their scores out."""

import numpy as np

from models.candidates import pool, score_candidates
from models.generation import Candidate


class Lengths:
    """Stands for a retriever whose similarity is easy to check: text length times the clip's number."""

    def text_embeddings(self, texts: list[str]) -> np.ndarray:
        assert len(texts) == len(set(texts)), "each distinct text is embedded once"
        return np.array([[float(len(text))] for text in texts])

    def pair_similarity(self, text: np.ndarray, texts: np.ndarray, audio: np.ndarray, clips: np.ndarray) -> np.ndarray:
        return text[texts, 0] * audio[clips, 0]


BY_CAPTIONER = {
    "one": [[Candidate("a dog", -1.0, 3), Candidate("rain", -2.0, 2)], [Candidate("rain", -0.5, 2)]],
    "two": [[Candidate("a dog", -0.7, 4)], [Candidate("wind", -0.1, 2), Candidate("a bell", -3.0, 3)]],
}


def test_a_text_of_two_captioners_stays_once_with_its_best_score() -> None:
    first = pool(BY_CAPTIONER)[0]
    assert [(name, c.text, c.decoder_score) for name, c in first] == [("one+two", "a dog", -0.7), ("one", "rain", -2.0)]


def test_scores_land_in_their_cells() -> None:
    audio = np.array([[1.0], [10.0]])
    table = score_candidates(BY_CAPTIONER, {"lengths": Lengths()}, {"lengths": audio}, None)  # type: ignore[dict-item]
    assert table.texts == [["a dog", "rain"], ["rain", "wind", "a bell"]]
    assert table.mask.tolist() == [[True, True, False], [True, True, True]]
    np.testing.assert_allclose(table.encoder_score["lengths"], [[5, 4, 0], [40, 40, 60]])
    np.testing.assert_allclose(table.scores[1], [[-0.7, -2, 0], [-0.5, -0.1, -3]])
    assert table.score_names == ["lengths", "decoder"]


def test_one_captioners_share_keeps_what_it_proposed_itself() -> None:
    table = score_candidates(BY_CAPTIONER, {"l": Lengths()}, {"l": np.ones((2, 1))}, None)  # type: ignore[dict-item]
    assert table.of_captioner("two").mask.tolist() == [[True, False, False], [False, True, True]]
