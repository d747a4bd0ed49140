"""Let captioners help to retrieve: how likely each finds a query, and how near a query is to the captions of a clip.

Both are columns [Q, N] beside the retrievers' similarities, higher is better, and fused with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..captioner.model import Captioner
from ..generation.candidates import BATCH, encoded_batches, search
from ..generation.likelihood import log_likelihoods
from ..generation.proposals import ClipInputs
from ..retriever.model import Retriever
from ..settings import BeamConfig
from .retrieval_fusion import fuse


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


def caption_column(retriever: Retriever, queries: list[str], captions: Sequence[Sequence[str]]) -> np.ndarray:
    """Return the mean cosine [Q, N] of each query and the captions of each of N clips, by a retriever's text encoder.

    Args:
        captions: at least one of each clip.
    """
    texts = [text for of_clip in captions for text in of_clip]
    clip = np.repeat(np.arange(len(captions)), [len(of_clip) for of_clip in captions])
    embeddings = retriever.text_embeddings(texts)
    means = np.zeros((len(captions), embeddings.shape[1]), np.float64)
    np.add.at(means, clip, embeddings)
    means /= np.bincount(clip, minlength=len(captions))[:, None]
    cosines: np.ndarray = retriever.text_embeddings(queries) @ means.T
    return cosines
