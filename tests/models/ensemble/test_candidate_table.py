"""Pooling captioners' candidates and laying their scores out."""

from typing import Any

import numpy as np
import pytest

from models.ensemble.candidate_table import CandidateError, CandidateTable, score_candidates
from models.ensemble.score_arrays import NoCandidateError, NonFiniteScoreError
from models.ensemble.scores.base import MemberNames, Scorers
from models.generation.candidates import Candidate
from models.generation.pooling import pool


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


def score(by_captioner: dict[str, list[list[Candidate]]], audio: dict[str, np.ndarray]) -> CandidateTable:
    retrievers: Any = {name: Lengths() for name in audio}
    return score_candidates(by_captioner, Scorers(retrievers, audio, encoder_score="distance"))


def test_a_text_of_two_captioners_stays_once_with_its_best_score() -> None:
    first = pool({name: clips[0] for name, clips in BY_CAPTIONER.items()})
    assert [(name, c.text, c.decoder_score) for name, c in first] == [("one+two", "a dog", -0.7), ("one", "rain", -2.0)]


def test_of_texts_with_the_same_words_the_likeliest_stays_as_it_is_written() -> None:
    proposed = {
        "one": [Candidate("A dog barks.", -1.0, 4), Candidate("a dog", -2.0, 3)],
        "two": [Candidate("a dog barks", -0.5, 3), Candidate("rain", -0.1, 2)],
        "three": [Candidate("a  dog, barks", -0.7, 5)],
    }
    clip = pool(proposed)
    assert [(name, c.text) for name, c in clip] == [
        ("one+two+three", "a dog barks"),
        ("one", "a dog"),
        ("two", "rain"),
    ]


def test_scores_land_in_their_cells() -> None:
    audio = np.array([[1.0], [10.0]])
    table = score(BY_CAPTIONER, {"lengths": audio})
    assert table.texts == [["a dog", "rain"], ["rain", "wind", "a bell"]]
    assert table.mask.tolist() == [[True, True, False], [True, True, True]]
    np.testing.assert_allclose(table.encoder_score["lengths"], [[5, 4, 0], [40, 40, 60]])
    np.testing.assert_allclose(table.stacked_scores[1], [[-0.7, -2, 0], [-0.5, -0.1, -3]])
    assert table.score_names[:2] == ["lengths", "decoder"]


def test_one_captioners_share_keeps_what_it_proposed_itself() -> None:
    table = score(BY_CAPTIONER, {"l": np.ones((2, 1))})
    assert table.of_captioner("two").mask.tolist() == [[True, False, False], [False, True, True]]


def scored() -> CandidateTable:
    return score(BY_CAPTIONER, {"l": np.array([[1.0], [10.0]])})


def test_mixtures_keep_samples_and_beams_and_never_empty_a_clip() -> None:
    with_beam = BY_CAPTIONER | {"two/beam": [[Candidate("a horn", -0.2, 3)], []]}
    table = score(with_beam, {"l": np.ones((2, 1))})
    assert table.of_members(["two"]).mask.tolist() == [[True, False, True], [False, True, True]]
    assert table.of_members(["one", "two"]).mask.tolist() == table.mask.tolist()
    assert table.of_members(["nobody"]).mask.tolist() == table.mask.tolist()


def test_a_frame_holds_the_whole_table() -> None:
    table = scored()
    values = {"cider_d": np.array([[0.1, 0.2, 0.0], [0.3, 0.4, 0.5]])}
    frame = table.to_frame(["x", "y"], values)
    known = CandidateTable.from_frame(frame, ["x", "y"])
    again, found = known.table, known.values
    assert (again.texts, again.captioners, again.tokens) == (table.texts, table.captioners, table.tokens)
    np.testing.assert_array_equal(again.stacked_scores, table.stacked_scores)
    np.testing.assert_array_equal(found["cider_d"], values["cider_d"])
    turned = CandidateTable.from_frame(frame, ["y", "x"]).table
    assert turned.texts == table.texts[::-1]
    np.testing.assert_array_equal(turned.decoder_score, table.decoder_score[::-1])


def test_what_does_not_belong_together_is_named() -> None:
    frame = scored().to_frame(["x", "y"])
    with pytest.raises(CandidateError, match="no column 'encoder_score/bge'"):
        CandidateTable.from_frame(frame, ["x", "y"], MemberNames(["bge"]))
    with pytest.raises(CandidateError, match="candidates of 'y'"):
        CandidateTable.from_frame(frame, ["x"])
    with pytest.raises(NoCandidateError, match="clip z"):
        CandidateTable.from_frame(frame, ["x", "y", "z"])
    frame.loc[1, "decoder_score"] = np.nan
    with pytest.raises(NonFiniteScoreError, match="decoder_score of clip 'x', candidate 'rain'"):
        CandidateTable.from_frame(frame, ["x", "y"])
    worth = scored().to_frame(["x", "y"], {"cider_d": np.array([[0.1, np.inf, 0.0], [0.3, 0.4, 0.5]])})
    with pytest.raises(NonFiniteScoreError, match="value/cider_d of clip 'x', candidate 'rain'"):
        CandidateTable.from_frame(worth, ["x", "y"])
    with pytest.raises(CandidateError, match=r"different numbers of clips: \{'one': 2, 'two': 1\}"):
        score(BY_CAPTIONER | {"two": BY_CAPTIONER["two"][:1]}, {})
    with pytest.raises(CandidateError, match="l embeds 3 clips of 2"):
        score(BY_CAPTIONER, {"l": np.ones((3, 1))})
    audio, silent = np.array([[1.0], [np.nan]]), {"one": [BY_CAPTIONER["one"][0], []]}
    with pytest.raises(NonFiniteScoreError, match="encoder_score/l of clip 1"):
        score(BY_CAPTIONER, {"l": audio})
    with pytest.raises(NoCandidateError, match="clip 1"):
        score(silent, {"l": np.ones((2, 1))})


def test_a_clip_of_one_candidate_is_a_table_too() -> None:
    alone = {"one": [[Candidate("a dog", -1.0, 3)]]}
    table = score(alone, {"l": np.ones((1, 1))})
    assert table.mask.tolist() == [[True]]
    assert CandidateTable.from_frame(table.to_frame(["x"]), ["x"]).table.texts == [["a dog"]]
