"""The candidate table: every caption that captioners propose for a clip, with all the scores that choose among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.fluency import FluencyDetector
from models.generation import Candidate
from models.retriever import Retriever


@dataclass(frozen=True)
class CandidateTable:
    """C clips by at most K candidates; cells behind a clip's last candidate are masked out."""

    texts: list[list[str]]
    captioners: list[list[str]]
    tokens: list[list[int]]
    mask: np.ndarray  # [C, K] bool
    decoder_score: np.ndarray  # [C, K]
    encoder_score: dict[str, np.ndarray]  # a retriever's name to [C, K]
    fluency_error: np.ndarray  # [C, K]

    @property
    def score_names(self) -> list[str]:
        """The names of `scores`, in order: each retriever, then the decoder."""
        return [*self.encoder_score, "decoder"]

    @property
    def scores(self) -> np.ndarray:
        """All scores [S, C, K], in the order of `score_names`."""
        return np.stack([*self.encoder_score.values(), self.decoder_score])

    def of_captioner(self, name: str) -> CandidateTable:
        """The same table with only one captioner's candidates left in: sampled ones of `a`, the beam of `a/beam`."""
        theirs = np.zeros_like(self.mask)
        for row, captioners in enumerate(self.captioners):
            theirs[row, : len(captioners)] = [name in captioner.split("+") for captioner in captioners]
        return CandidateTable(
            self.texts, self.captioners, self.tokens, self.mask & theirs, self.decoder_score, self.encoder_score,
            self.fluency_error,
        )  # fmt: skip


def pool(by_captioner: dict[str, list[list[Candidate]]]) -> list[list[tuple[str, Candidate]]]:
    """Join the captioners' candidates clip by clip; a text that several propose stays once, with its best score.

    Its captioner is then named `a+b`.
    """
    clips = len(next(iter(by_captioner.values())))
    pooled: list[list[tuple[str, Candidate]]] = []
    for clip in range(clips):
        by_text: dict[str, tuple[str, Candidate]] = {}
        for name, candidates in by_captioner.items():
            for candidate in candidates[clip]:
                known = by_text.get(candidate.text)
                better = known[1] if known and known[1].decoder_score >= candidate.decoder_score else candidate
                by_text[candidate.text] = (f"{known[0]}+{name}" if known else name, better)
        pooled.append(list(by_text.values()))
    return pooled


def score_candidates(
    by_captioner: dict[str, list[list[Candidate]]],
    retrievers: dict[str, Retriever],
    audio_embeddings: dict[str, np.ndarray],
    detector: FluencyDetector | None,
) -> CandidateTable:
    """Pool candidates and score them; each distinct text is embedded once, however many clips it is proposed for.

    Args:
        by_captioner: a captioner's name to candidates of each of C clips.
        retrievers: by name; each gives an encoder_score.
        audio_embeddings: by retriever, [C, D].
        detector: gives fluency_error; without one it is 0.
    """
    pooled = pool(by_captioner)
    shape = (len(pooled), max(len(clip) for clip in pooled))
    mask = np.arange(shape[1]) < np.array([len(clip) for clip in pooled])[:, None]
    distinct: dict[str, int] = {}
    text_of = np.array([distinct.setdefault(c.text, len(distinct)) for clip in pooled for _, c in clip])
    clip_of = np.nonzero(mask)[0]
    texts = list(distinct)

    def table(values: Sequence[float] | np.ndarray) -> np.ndarray:
        filled = np.zeros(shape)
        filled[mask] = values
        return filled

    encoder_score = {}
    for name, retriever in retrievers.items():
        embedded = retriever.text_embeddings(texts)
        encoder_score[name] = table(retriever.pair_similarity(embedded, text_of, audio_embeddings[name], clip_of))
    error = detector.fluency_error(texts)[text_of] if detector else np.zeros(len(text_of))
    return CandidateTable(
        texts=[[candidate.text for _, candidate in clip] for clip in pooled],
        captioners=[[name for name, _ in clip] for clip in pooled],
        tokens=[[candidate.tokens for _, candidate in clip] for clip in pooled],
        mask=mask,
        decoder_score=table([candidate.decoder_score for clip in pooled for _, candidate in clip]),
        encoder_score=encoder_score,
        fluency_error=table(error),
    )
