"""A score of one's own is a class and one line of the registry: from there it is computed, weighed, kept and read."""

from collections.abc import Sequence

import numpy as np
import pytest

from models.ensemble.candidate_table import CandidateError, CandidateTable, score_candidates
from models.ensemble.reranking import Reranking
from models.ensemble.scores import registry
from models.ensemble.scores.base import MemberNames, Score, Scorers, ScoringContext, weight_name
from models.generation.candidates import Candidate
from models.selection.leave_one_out import Group, choose_captions, solve_captioning
from models.selection.reranking_weights import RerankingOptions, mixtures_of, search_reranking

CLIPS = 40
CLIP_IDS = [f"clip-{clip}" for clip in range(CLIPS)]
OPTIONS = RerankingOptions(normalisation="z")


class CaptionLength(Score):
    """The number of words."""

    name = "words"

    def values(self, context: ScoringContext) -> np.ndarray:
        return np.array([len(text.split()) for text in context.texts])[context.text_of]


class Overlap(Score):
    """A score with a column for each retriever."""

    name = "overlap"

    def columns(self, members: MemberNames) -> list[str]:
        return [f"overlap_score/{name}" for name in members.retrievers]

    def values(self, context: ScoringContext) -> np.ndarray:
        return np.stack([context.text_embeddings[name][context.text_of, 0] for name in context.members.retrievers])


class Short(CaptionLength):
    """A score that forgets a candidate."""

    def values(self, context: ScoringContext) -> np.ndarray:
        return super().values(context)[1:]


class Noise:
    """Stands for a retriever that sees nothing; each distinct text must be embedded once."""

    def text_embeddings(self, texts: list[str]) -> np.ndarray:
        assert len(texts) == len(set(texts))
        return np.random.default_rng(1).normal(size=(len(texts), 1))

    def pair_similarity(self, text: np.ndarray, texts: np.ndarray, audio: np.ndarray, clips: np.ndarray) -> np.ndarray:
        return text[texts, 0] * audio[clips, 0]


def scored(retrievers: Sequence[str] = ("bge",)) -> CandidateTable:
    """Return a table of one to nine words a caption, of which two captioners propose four each."""
    rng = np.random.default_rng(0)

    def proposed() -> list[list[Candidate]]:
        return [
            [Candidate(" ".join(["rain"] * n), rng.normal(), n) for n in rng.permutation(9)[:4] + 1] for _ in CLIP_IDS
        ]

    audio = {name: rng.normal(size=(CLIPS, 1)) for name in retrievers}
    noise = {name: Noise() for name in retrievers}
    return score_candidates({"one": proposed(), "two": proposed()}, Scorers(noise, audio))  # type: ignore[arg-type]


def words(table: CandidateTable) -> np.ndarray:
    """Return the number of words of each candidate, [C, K]."""
    found = np.zeros(table.mask.shape)
    found[table.mask] = [len(text.split()) for texts in table.texts for text in texts]
    return found


@pytest.fixture(autouse=True)
def papers_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave only encoder and decoder registered."""
    monkeypatch.setattr(registry, "SCORES", registry.ALWAYS)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "SCORES", (*registry.SCORES, CaptionLength()))


def test_a_registered_score_is_weighed(registered: None) -> None:
    table = scored()
    assert table.score_names == ["bge", "decoder", "words"]
    np.testing.assert_array_equal(table.scores["words_score"], words(table))
    found = search_reranking(table, words(table), mixtures_of(["one", "two"]), OPTIONS)
    assert list(found.reranking.weights) == ["bge", "decoder", "words"]
    assert found.reranking.weights["words"] > 0.5, "the longest captions are the best ones here"
    assert {"bge", "decoder", "words"} <= set(found.trials)
    chosen = found.reranking.choose(table)
    np.testing.assert_allclose(words(table)[np.arange(CLIPS), chosen].mean(), found.solution.value)
    assert (
        found.solution.value
        > search_reranking(
            table.with_scores(["bge", "decoder"]), words(table), mixtures_of(["one", "two"]), OPTIONS
        ).solution.value
    )


def test_it_is_weighed_where_members_are_left_out(registered: None) -> None:
    table, group = scored(["bge", "other"]), Group(("one", "two"), ("bge",))
    reranking, _ = solve_captioning(group, table, words(table), OPTIONS)
    assert list(reranking.weights) == ["bge", "decoder", "words"]
    assert reranking.weights["words"] > 0.5
    chosen = words(table)[np.arange(CLIPS), choose_captions(group, reranking, table)]
    assert chosen.mean() > 0.9 * words(table).max(1).mean()


def test_it_is_in_files_and_read_from_them(registered: None) -> None:
    table = scored()
    frame = table.to_frame(CLIP_IDS)
    assert list(frame)[4:] == ["decoder_score", "encoder_score/bge", "words_score", "fluency_error"]
    again = CandidateTable.from_frame(frame, CLIP_IDS).table
    assert list(again.scores) == ["encoder_score/bge", "decoder_score", "words_score"]
    np.testing.assert_array_equal(again.stacked_scores, table.stacked_scores)


def test_the_other_scores_and_their_weights_stay_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    before = scored()
    reranking = Reranking(weights={"bge": 0.7, "decoder": 0.3})
    monkeypatch.setattr(registry, "SCORES", (*registry.SCORES, CaptionLength()))
    after = scored()
    for column, values in before.scores.items():
        np.testing.assert_array_equal(after.scores[column], values)
    np.testing.assert_array_equal(reranking.choose(after), reranking.choose(before))
    np.testing.assert_array_equal(reranking.totals(after), reranking.totals(before))
    # files from before it load, and are refused by name where the score is needed
    frame = before.to_frame(CLIP_IDS)
    again = CandidateTable.from_frame(frame, CLIP_IDS).table
    assert again.score_names == ["bge", "decoder"]
    with pytest.raises(CandidateError, match=r"no column 'words_score'; found clip_id, .*decoder_score"):
        CandidateTable.from_frame(frame, CLIP_IDS, MemberNames(["bge"]))
    with pytest.raises(CandidateError, match="candidates have no score 'words'; found bge, decoder"):
        Reranking(weights={"bge": 0.5, "decoder": 0.3, "words": 0.2}).choose(again)


def test_a_score_may_have_a_column_for_each_retriever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "SCORES", (*registry.SCORES, Overlap()))
    table = scored(["bge", "other"])
    assert table.score_names == ["bge", "other", "decoder", "overlap/bge", "overlap/other"]
    assert list(table.encoder_score) == ["bge", "other"]
    assert table.without_retrievers(["bge"]).score_names == ["other", "decoder", "overlap/other"]
    assert scored([]).score_names == ["decoder"]


def test_scores_that_do_not_fit_are_named(monkeypatch: pytest.MonkeyPatch, registered: None) -> None:
    with pytest.raises(CandidateError, match="two of them have the weight 'words'"):
        scored(["words"])
    monkeypatch.setattr(registry, "SCORES", (*registry.SCORES[:2], Short()))
    with pytest.raises(CandidateError, match=r"words_score: \(\d+,\) values for \d+ candidates"):
        scored()


@pytest.mark.parametrize(
    ("column", "weight"),
    [
        ("encoder_score/bge", "bge"),
        ("encoder_score/a_score/b", "a_score/b"),
        ("decoder_score", "decoder"),
        ("overlap_score/bge", "overlap/bge"),
    ],
)
def test_weights_are_named_after_their_columns(column: str, weight: str) -> None:
    assert weight_name(column) == weight
