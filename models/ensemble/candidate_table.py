"""Pool the captions that captioners propose for each clip, and lay out all scores that one is chosen by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..generation.pooling import captioner_of, pool, proposals_of, proposers
from .score_arrays import NoCandidateError, NonFiniteScoreError, refuse_non_finite
from .scores.base import MemberNames, Scorers, ScoringContext, weight_name
from .scores.consensus import ConsensusScore
from .scores.decoder import DECODER
from .scores.encoder import ENCODER
from .scores.joint import JOINT, joint
from .scores.likelihood import LIKELIHOOD
from .scores.origin import ORIGIN
from .scores.registry import columns_among, kind_of, score_all, score_columns

if TYPE_CHECKING:  # tables are also read where no model is loaded
    from ..generation.candidates import Candidate

VALUE = "value/"  # prefix of a frame's columns, before a metric


class CandidateError(ValueError):
    """Candidates, scores and clips that do not belong together."""


@dataclass(frozen=True)
class CandidateTable:
    """The candidates of C clips, at most K of each; cells after a clip's last candidate are masked out."""

    texts: list[list[str]]
    captioners: list[list[str]]  # `a+b` where both proposed the text
    tokens: list[list[int]]
    mask: np.ndarray  # [C, K] bool
    scores: dict[str, np.ndarray]  # a column of `scores.registry` to [C, K]
    fluency_error: np.ndarray  # [C, K] probability of a damaged caption

    def __post_init__(self) -> None:
        if twice := [name for name, count in Counter(self.score_names).items() if count > 1]:
            raise CandidateError(f"scores {', '.join(self.scores)}: two of them have the weight {twice[0]!r}")

    @property
    def score_names(self) -> list[str]:
        """Return the names of the scores' weights, in order: each retriever, the decoder, then all others."""
        return [weight_name(column) for column in self.scores]

    @property
    def stacked_scores(self) -> np.ndarray:
        """Return all scores [S, C, K], in the order of `score_names`."""
        return np.stack(list(self.scores.values()))

    @property
    def encoder_score(self) -> dict[str, np.ndarray]:
        """Return the similarity to the audio [C, K] by retriever."""
        return {weight_name(column): score for column, score in self.scores.items() if column.startswith(ENCODER)}

    @property
    def decoder_score(self) -> np.ndarray:
        """Return the mean log-likelihood of a token [C, K]."""
        return self.scores[DECODER]

    def of_captioner(self, name: str) -> CandidateTable:
        """Return the table with only one captioner's candidates unmasked: samples of `a`, or beams of `a/beam`."""
        return replace(self, mask=self.mask & self._proposed_by({name}))

    def of_members(self, names: Iterable[str]) -> CandidateTable:
        """Return the table with only some sources' candidates unmasked: those of `a`, `a/beam` or `a/samples`.

        A clip for which they propose nothing keeps the candidates of the others, so that every clip gets a caption.
        """
        wanted = {proposed for name in names for proposed in proposals_of(name)}
        theirs = self.mask & self._proposed_by(wanted)
        return replace(self, mask=np.where(theirs.any(1, keepdims=True), theirs, self.mask))

    def proposes(self, source: str) -> bool:
        """Return whether any candidate is of a source, such as `a` or `a/beam`."""
        return bool(self._proposed_by({source}).any())

    def without_retrievers(self, names: Iterable[str]) -> CandidateTable:
        """Return the table without the scores that some retrievers give."""
        gone = set(names)
        left = {column: score for column, score in self.scores.items() if column.partition("/")[2] not in gone}
        return replace(self, scores=left)

    def judged_by(self, captioners: Collection[str]) -> CandidateTable:
        """Return the table with only some captioners' scores of all candidates, and the joint scores of these alone.

        Consensus stays that with the candidates of all captioners (`agreeing`).
        """
        own = {LIKELIHOOD + name for name in captioners} | {
            ORIGIN + name for name in ("beam", *(captioners if len(captioners) > 1 else ()))
        }
        others = {column for column in self.scores if column.startswith((LIKELIHOOD, ORIGIN)) and column not in own}
        left = {column: score for column, score in self.scores.items() if column not in {*others, *JOINT}}
        likelihoods = [score for column, score in left.items() if column.startswith(LIKELIHOOD)]
        if len(likelihoods) > 1:
            left |= zip(JOINT, joint(np.stack(likelihoods)), strict=True)
        return replace(self, scores={column: left[column] for column in self.scores if column in left})

    def agreeing(self, captioners: Iterable[str]) -> CandidateTable:
        """Return the table with the consensus that some captioners' candidates have among themselves.

        Where others propose, too, that is the one of n-grams alone: for those of retrievers, which compare embeddings,
        the texts would have to be embedded anew, and they are left out.
        """
        pool = self.of_members(captioners).mask
        if np.array_equal(pool, self.mask):
            return self
        rows, columns = np.nonzero(pool)
        said = [self.texts[row][column] for row, column in zip(rows.tolist(), columns.tolist(), strict=True)]
        texts, text_of = np.unique(said, return_inverse=True)
        nobody, score = MemberNames(), ConsensusScore()
        context = ScoringContext([], [], rows, texts.tolist(), text_of, nobody, Scorers())
        found = np.zeros(pool.shape)
        found[pool] = score.values(context)[0]
        (ngrams,) = score.columns(nobody)
        left = {column: one for column, one in self.scores.items() if column == ngrams or not score.owns(column)}
        return replace(self, scores=left | ({ngrams: found} if ngrams in left else {}))

    def with_scores(self, names: Collection[str]) -> CandidateTable:
        """Return the table with only the scores whose weights are named.

        Raises:
            CandidateError: naming a score that the candidates do not have.
        """
        if missing := [name for name in names if name not in self.score_names]:
            raise CandidateError(f"candidates have no score {missing[0]!r}; found {', '.join(self.score_names)}")
        return replace(self, scores={c: score for c, score in self.scores.items() if weight_name(c) in names})

    def of_kinds(self, kinds: Collection[str]) -> CandidateTable:
        """Return the table with only some kinds of scores, such as `encoder`; the decoder's where there are none."""
        own = {column: score for column, score in self.scores.items() if kind_of(column) in kinds}
        return replace(self, scores=own or {DECODER: self.decoder_score})

    def _proposed_by(self, names: set[str]) -> np.ndarray:
        theirs = np.zeros_like(self.mask)
        for row, captioners in enumerate(self.captioners):
            theirs[row, : len(captioners)] = [not names.isdisjoint(proposers(name)) for name in captioners]
        return theirs

    def to_frame(self, clip_ids: Sequence[str], values: Mapping[str, np.ndarray] | None = None) -> pd.DataFrame:
        """Return a frame with one row per candidate, in the table's order.

        Args:
            clip_ids: of the C clips.
            values: a metric's name to [C, K]; they become columns `value/<metric>`.
        """
        rows, columns = np.nonzero(self.mask)
        decoder_first = sorted(self.scores, key=lambda column: column != DECODER)  # as in the files of all versions
        cells = list(zip(rows.tolist(), columns.tolist(), strict=True))
        return pd.DataFrame(
            {
                "clip_id": [clip_ids[row] for row, _ in cells],
                "caption": [self.texts[row][column] for row, column in cells],
                "captioner": [self.captioners[row][column] for row, column in cells],
                "tokens": [self.tokens[row][column] for row, column in cells],
                **{column: self.scores[column][self.mask] for column in decoder_first},
                "fluency_error": self.fluency_error[self.mask],
                **{VALUE + name: value[self.mask] for name, value in (values or {}).items()},
            }
        )

    @classmethod
    def from_frame(
        cls, frame: pd.DataFrame, clip_ids: Sequence[str], members: MemberNames | None = None
    ) -> ValuedTable:
        """Return the table and values of a frame of `to_frame`, clips in the order of `clip_ids`.

        Args:
            members: with these, the frame must have all registered scores; when left out, those that it has are read.

        Raises:
            CandidateError: if a column is missing, or the frame's clips are not those of `clip_ids`.
            NoCandidateError, NonFiniteScoreError: naming the clip by its clip_id.
        """
        scores = columns_among(frame.columns) if members is None else score_columns(members)
        metrics = [name.removeprefix(VALUE) for name in frame.columns if name.startswith(VALUE)]
        _check_frame(frame, clip_ids, [*scores, "fluency_error", *(VALUE + name for name in metrics)])
        row_of = {clip_id: row for row, clip_id in enumerate(clip_ids)}
        rows = frame["clip_id"].map(row_of).to_numpy(int)
        frame, rows = frame.iloc[np.argsort(rows, kind="stable")], np.sort(rows, kind="stable")
        counts = np.bincount(rows, minlength=len(clip_ids))
        mask = np.arange(counts.max()) < counts[:, None]
        ends = np.cumsum(counts)[:-1]

        def lists(column: str) -> list[list[Any]]:
            return [part.tolist() for part in np.split(frame[column].to_numpy(), ends)]

        def dense(column: str) -> np.ndarray:
            filled = np.zeros(mask.shape)
            filled[mask] = frame[column].to_numpy(float)
            return filled

        table = cls(
            texts=lists("caption"),
            captioners=lists("captioner"),
            tokens=lists("tokens"),
            mask=mask,
            scores={column: dense(column) for column in scores},
            fluency_error=dense("fluency_error"),
        )
        return ValuedTable(table, {name: dense(VALUE + name) for name in metrics})


@dataclass(frozen=True)
class ValuedTable:
    """A table of candidates with what each of them is worth."""

    table: CandidateTable
    values: dict[str, np.ndarray]  # a metric's name to [C, K]; empty where nothing was valued


def _check_frame(frame: pd.DataFrame, clip_ids: Sequence[str], numeric: list[str]) -> None:
    for column in ("clip_id", "caption", "captioner", "tokens", *numeric):
        if column not in frame:
            raise CandidateError(f"candidates have no column {column!r}; found {', '.join(map(str, frame.columns))}")
    if unknown := sorted(set(frame["clip_id"]) - set(clip_ids)):
        raise CandidateError(f"candidates of {unknown[0]!r}, which is not among the {len(clip_ids)} clips")
    if missing := [clip_id for clip_id in clip_ids if clip_id not in set(frame["clip_id"])]:
        raise NoCandidateError(missing[0])
    for column in numeric:
        bad = np.flatnonzero(~np.isfinite(frame[column].to_numpy(float)))
        if len(bad):
            row = frame.iloc[bad[0]]
            raise NonFiniteScoreError(column, repr(row["clip_id"]), repr(row["caption"]))


def score_candidates(
    by_captioner: dict[str, list[list[Candidate]]], scorers: Scorers, columns: Collection[str] | None = None
) -> CandidateTable:
    """Pool candidates clip by clip, and give them scores.

    Args:
        by_captioner: candidates of each of C clips, under `<source>` and `<source>/beam`.
        scorers: what scores them; each distinct text is embedded and judged once.
        columns: the scores to compute; all that are registered when left out.

    Raises:
        CandidateError: if members propose for or embed different numbers of clips.
        NoCandidateError, NonFiniteScoreError: naming the clip by its row.
    """
    pooled = _pool(by_captioner)
    for name, embeddings in scorers.audio_embeddings.items():
        if len(embeddings) != len(pooled):
            raise CandidateError(f"{name} embeds {len(embeddings)} clips of {len(pooled)}")
    shape = (len(pooled), max(len(clip) for clip in pooled))
    mask = np.arange(shape[1]) < np.array([len(clip) for clip in pooled])[:, None]
    distinct: dict[str, int] = {}
    text_of = np.array([distinct.setdefault(c.text, len(distinct)) for clip in pooled for _, c in clip])
    context = ScoringContext(
        candidates=[candidate for clip in pooled for _, candidate in clip],
        captioners=[name for clip in pooled for name, _ in clip],
        clip_of=np.nonzero(mask)[0],
        texts=list(distinct),
        text_of=text_of,
        members=MemberNames(
            retrievers=list(scorers.retrievers),
            captioners=list(scorers.likelihoods),
            caption_sources=list(dict.fromkeys(captioner_of(name) for name in by_captioner)),
        ),
        scorers=scorers,
    )

    def dense(values: np.ndarray, what: str) -> np.ndarray:
        if values.shape != text_of.shape:
            raise CandidateError(f"{what}: {values.shape} values for {len(text_of)} candidates")
        filled = np.zeros(shape)
        filled[mask] = values
        refuse_non_finite(what, filled, mask)
        return filled

    return CandidateTable(
        texts=[[candidate.text for _, candidate in clip] for clip in pooled],
        captioners=[[name for name, _ in clip] for clip in pooled],
        tokens=[[candidate.tokens for _, candidate in clip] for clip in pooled],
        mask=mask,
        scores={column: dense(values, column) for column, values in score_all(context, columns).items()},
        fluency_error=dense(context.fluency_error, "fluency_error"),
    )


def _pool(by_captioner: Mapping[str, Sequence[Sequence[Candidate]]]) -> list[list[tuple[str, Candidate]]]:
    """Join the captioners' candidates clip by clip (`pool`).

    Raises:
        CandidateError: if captioners propose for different numbers of clips.
        NoCandidateError: if nobody proposes anything for a clip.
    """
    counts = {name: len(candidates) for name, candidates in by_captioner.items()}
    if len(set(counts.values())) != 1:
        raise CandidateError(f"captioners propose for different numbers of clips: {counts}")
    pooled = [
        pool(dict(zip(by_captioner, of_clip, strict=True))) for of_clip in zip(*by_captioner.values(), strict=True)
    ]
    for clip, candidates in enumerate(pooled):
        if not candidates:
            raise NoCandidateError(clip)
    return pooled
