"""How much a candidate agrees with the clip's other candidates: the choice of minimum Bayes risk.

Of captions that are samples of what captioners believe, the one nearest to all others has the highest expected
similarity to a caption drawn from that belief (Kumar and Byrne, "Minimum Bayes-Risk Decoding", HLT-NAACL 2004).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...normal_form import normal_form
from ...pairs import compare_pairs, dot
from .base import MemberNames, Score, ScoringContext

CONSENSUS = "consensus_score/"  # before `ngram` and a retriever's name
NGRAMS = (1, 2, 3, 4)


class ConsensusScore(Score):
    """The mean similarity to the clip's other candidates; 0 for a candidate that is alone.

    `ngram`: the cosine of the counts of 1- to 4-grams, the mean of the four, as in CIDEr (arXiv 1411.5726, eq. 2 and 3)
    with every n-gram of the same weight: document frequencies of the clips at hand would make a clip's scores depend on
    what other clips are captioned with it.

    `<retriever>`: the cosine of a retriever's text embeddings.
    """

    name = "consensus"
    of_pool = True

    def columns(self, members: MemberNames) -> list[str]:
        return [CONSENSUS + name for name in ("ngram", *members.retrievers)]

    def values(self, context: ScoringContext) -> np.ndarray:
        others = np.bincount(context.clip_of)[context.clip_of] - 1
        words = [normal_form(text).split() for text in context.texts]
        ngrams = np.mean([_summed_cosines(_unit_counts(words, length), context) for length in NGRAMS], axis=0)
        embedded = [_summed_cosines(context.text_embeddings[name], context) for name in context.members.retrievers]
        means: np.ndarray = np.stack([ngrams, *embedded]) / np.maximum(others, 1)
        return means


def _summed_cosines(vectors: Any, context: ScoringContext) -> np.ndarray:
    """Return each candidate's sum [N] of cosines to the clip's other candidates, in time linear in their number.

    Args:
        vectors: [T, D] of the distinct texts, of unit length or zero, dense or sparse.
    """
    from scipy.sparse import csr_array  # takes long to import; tables are also read without it

    shape = (int(context.clip_of.max()) + 1, len(context.texts))
    candidates_of = csr_array((np.ones(len(context.clip_of)), (context.clip_of, context.text_of)), shape=shape)
    everyone = compare_pairs(_dot, vectors, context.text_of, candidates_of @ vectors, context.clip_of)
    others: np.ndarray = everyone - _dot(vectors, vectors)[context.text_of]
    return others


def _dot(left: Any, right: Any) -> np.ndarray:
    """Return the dot products [n] of rows [n, D] with rows [n, D], both dense or both sparse."""
    return dot(left, right) if isinstance(left, np.ndarray) else np.asarray(left.multiply(right).sum(1)).ravel()


def _unit_counts(words: Sequence[Sequence[str]], length: int) -> Any:
    """Return how often each n-gram of `length` words is in each text, sparse [T, n-grams], rows of unit length."""
    from scipy.sparse import csr_array

    numbers: dict[tuple[str, ...], int] = {}
    rows, columns, counts = list[int](), list[int](), list[int]()
    for row, text in enumerate(words):
        for ngram, count in Counter(zip(*(text[at:] for at in range(length)), strict=False)).items():
            rows.append(row)
            columns.append(numbers.setdefault(ngram, len(numbers)))
            counts.append(count)
    lengths = np.sqrt(np.bincount(rows, np.square(counts), minlength=len(words)))
    return csr_array((counts / lengths[rows], (rows, columns)), shape=(len(words), max(len(numbers), 1)))
