"""Let captioners help to retrieve: how likely each finds a query, and how near a query is to the captions of a clip.

Both are columns [Q, N] beside the retrievers' similarities, higher is better, and fused with them. A column is named
`<captioner>/likelihood` or `<retriever>/captions`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..captioner.model import Captioner
from ..generation.candidates import BATCH, encoded_batches, search
from ..generation.likelihood import log_likelihoods
from ..generation.proposals import ClipInputs
from ..retriever.model import Retriever
from ..settings import BeamConfig
from .captioner_fusion import AUDIO, CAPTIONS, CODES, LIKELIHOOD, FusionWithCaptioners
from .index_columns import ragged
from .retrieval_fusion import fuse


@dataclass(frozen=True)
class CaptionerColumns:
    """Compute columns for Q queries from what captioners hear of N clips and say of them.

    Attributes:
        captioners: those whose likelihood is asked for.
        clips: codes, and what each captioner reads beside them.
        captions: [N, D] by retriever (`caption_embeddings`).
    """

    queries: list[str]
    retrievers: Mapping[str, Retriever]
    captioners: Mapping[str, Captioner]
    clips: ClipInputs
    captions: Mapping[str, np.ndarray]

    @classmethod
    def of_index(
        cls,
        queries: list[str],
        retrievers: Mapping[str, Retriever],
        captioners: Mapping[str, Captioner],
        kept: Mapping[str, np.ndarray],
    ) -> CaptionerColumns:
        """Return the columns of clips of which an index keeps something (`keep_for_captioners`)."""
        read = {name: kept[f"{name}/{AUDIO}"] for name in captioners if f"{name}/{AUDIO}" in kept}
        said = {name: kept[f"{name}/{CAPTIONS}"] for name in retrievers if f"{name}/{CAPTIONS}" in kept}
        return cls(queries, retrievers, captioners, ClipInputs([*kept.get(CODES, ())], read), said)

    def column(self, name: str, similarities: Mapping[str, np.ndarray], depth: int) -> np.ndarray:
        """Return a column [Q, N] by its name.

        Args:
            similarities: [Q, N] by retriever, of all of them.
            depth: clips of a query whose likelihood is computed.
        """
        member, _, kind = name.partition("/")
        if kind == CAPTIONS:
            cosines: np.ndarray = self.retrievers[member].text_embeddings(self.queries) @ self.captions[member].T
            return cosines
        best, read = best_clips(similarities, depth), self.clips.audio_embeddings[member]
        return likelihood_column(self.captioners[member], self.clips.codes, read, self.queries, best)

    def join(self, similarities: dict[str, np.ndarray], fusion: FusionWithCaptioners) -> np.ndarray:
        """Return the fused similarity [Q, N] of the retrievers' [Q, N] and of the columns that a fusion weighs."""
        columns = {name: self.column(name, similarities, fusion.depth) for name in fusion.weights if "/" in name}
        return fusion.join(similarities | columns)


def keep_for_captioners(
    fusion: FusionWithCaptioners,
    clips: ClipInputs,
    retrievers: Mapping[str, Retriever],
    captioners: Mapping[str, Captioner],
    beam: BeamConfig,
) -> dict[str, np.ndarray]:
    """Return what an index keeps of clips (`FusionWithCaptioners.kept`), by name."""
    found: dict[str, np.ndarray] = {}
    for name in fusion.members(LIKELIHOOD):
        found |= {CODES: ragged(clips.codes), f"{name}/{AUDIO}": clips.audio_embeddings[name]}
    if names := fusion.members(CAPTIONS):
        said = captions_of(captioners, clips, beam)
        found |= {f"{name}/{CAPTIONS}": caption_embeddings(retrievers[name], said) for name in names}
    return found


def best_clips(similarities: Mapping[str, np.ndarray], number: int) -> np.ndarray:
    """Return the clips [Q, K] of the highest similarity of each query, K at most `number`.

    Retrievers count alike, their similarities [Q, N] at zero mean and unit deviation within a query: no weights need be
    known yet.
    """
    stacked = list(similarities.values())
    joined = fuse(stacked, np.full(len(stacked), 1 / len(stacked)), "z")
    return np.argsort(-joined, axis=1, kind="stable")[:, :number]


def likelihood_column(
    captioner: Captioner,
    codes: Sequence[np.ndarray],
    audio_embeddings: np.ndarray,
    queries: list[str],
    best: np.ndarray,
) -> np.ndarray:
    """Return how likely a captioner finds each query given a clip, [Q, N], for the best clips of each query.

    It is the mean log-likelihood of a token, so that length hardly counts, less the query's mean over its best clips,
    in place of its likelihood without a clip: a text that a captioner likes anyway says nothing about a clip. All other
    clips get the least of the query's best ones (`spread`).

    Args:
        codes: [T_i, Q] of N clips.
        audio_embeddings: [N, D] that the captioner reads.
        best: [Q, K] from `best_clips`.
    """
    asked = np.unique(best)
    found, some = np.empty(best.shape), [codes[clip] for clip in asked]
    for numbers, states, mask in encoded_batches(captioner, some, audio_embeddings[asked], BATCH):
        places = [np.nonzero(best == clip) for clip in asked[numbers]]
        texts = [list(dict.fromkeys(queries[row] for row in rows)) for rows, _ in places]
        scores = log_likelihoods(captioner, states, mask, texts)
        for (rows, columns), of_clip in zip(places, scores, strict=True):
            found[rows, columns] = [of_clip[queries[row]] for row in rows]
    return spread(found - found.mean(1, keepdims=True), best, len(codes))


def spread(values: np.ndarray, best: np.ndarray, clips: int) -> np.ndarray:
    """Lay values [Q, K] of each query's best clips [Q, K] out as [Q, N]; other clips get the query's least value.

    No normalisation of rows then puts a clip that was not scored before one that was.
    """
    column = np.repeat(values.min(1, keepdims=True), clips, axis=1)
    np.put_along_axis(column, best, values, axis=1)
    return column


def captions_of(captioners: Mapping[str, Captioner], clips: ClipInputs, beam: BeamConfig) -> list[list[str]]:
    """Return what the captioners say of each of N clips by their search (`beam`), without sampling."""
    said: list[list[str]] = [[] for _ in clips.codes]
    for name, captioner in captioners.items():
        for rows, states, mask in encoded_batches(captioner, clips.codes, clips.audio_embeddings[name], BATCH):
            for row, candidates in zip(rows, search(captioner, states, mask, beam), strict=True):
                said[row] += [candidate.text for candidate in candidates]
    return said


def caption_embeddings(retriever: Retriever, captions: Sequence[Sequence[str]]) -> np.ndarray:
    """Return the mean embedding [N, D] of the captions of each of N clips; a query's product with it is a mean cosine.

    Args:
        captions: at least one of each clip.
    """
    texts = [text for of_clip in captions for text in of_clip]
    clip = np.repeat(np.arange(len(captions)), [len(of_clip) for of_clip in captions])
    embeddings = retriever.text_embeddings(texts)
    sums = np.zeros((len(captions), embeddings.shape[1]), np.float64)
    np.add.at(sums, clip, embeddings)
    return (sums / np.bincount(clip, minlength=len(captions))[:, None]).astype(np.float32)
