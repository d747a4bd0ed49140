"""How a codec's codebooks are used: entropy, dead entries, what neighbours share, what entries tell of labels.

Counts are added shard by shard, so that memory depends on the codec and on the number of labels alone. Everything is in
bits. Frames that follow each other are alike, so that there is less evidence than frames: estimates of few clips are
too high, also those that are corrected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.sparse import csr_array
from scipy.stats import entropy

SHUFFLES = 10  # of the labels among clips


class CodesError(ValueError):
    """Codes do not belong to the codec: another number of codebooks, or an entry that it does not have."""


class Labels:
    """The labels of clips, and the same labels shuffled among these clips, to see what chance alone would tell.

    A clip with n labels has each of them with the weight 1 / n.
    """

    def __init__(self, labels: Mapping[str, Sequence[str]], seed: int = 0) -> None:
        """Take the labels by clip, at least one each."""
        self.names = sorted({name for own in labels.values() for name in own})
        self._row = {clip: row for row, clip in enumerate(labels)}
        place = {name: column for column, name in enumerate(self.names)}
        numbers = np.array([len(own) for own in labels.values()], np.int64)
        rows, columns = np.repeat(np.arange(len(labels)), numbers), [place[n] for own in labels.values() for n in own]
        # the last row is that of clips without labels, and stays where it is
        shape = (len(labels) + 1, len(self.names))
        self._weights = csr_array((1 / np.repeat(numbers, numbers), (rows, columns)), shape=shape)
        rng = np.random.default_rng(seed)
        orders = [np.arange(len(labels)), *(rng.permutation(len(labels)) for _ in range(SHUFFLES))]
        self._orders = [np.append(order, len(labels)).astype(np.int32) for order in orders]

    def has(self, clip_ids: Sequence[str]) -> int:
        """Return how many of these clips have labels."""
        return sum(clip in self._row for clip in clip_ids)

    def weights(self, clip_ids: Sequence[str]) -> np.ndarray:
        """Return the weights [C, (1 + SHUFFLES) * L] of some clips: the labels as they are, then shuffled ones."""
        rows = np.array([self._row.get(clip, len(self._row)) for clip in clip_ids], np.int64)
        weights: np.ndarray = np.concatenate([self._weights[order[rows]].toarray() for order in self._orders], axis=1)
        return weights


class CodeCounts:
    """How often a codec's entries occur, alone, with those of the next codebook, and with labels."""

    def __init__(self, codebooks: int, entries: int, labels: int = 0) -> None:
        """Count Q codebooks of K entries each, and L labels."""
        self.codebooks, self.entries, self.labels, self.clips = codebooks, entries, labels, 0
        self.alone = np.zeros((codebooks, entries), np.int64)
        self.neighbours = [csr_array((entries, entries), dtype=np.int64) for _ in range(codebooks - 1)]
        self.labelled = np.zeros((codebooks, entries, labels * (1 + SHUFFLES)))

    @property
    def frames(self) -> int:
        """Return the number of frames that were counted."""
        return int(self.alone[0].sum())

    def add(self, codes: np.ndarray, lengths: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Count the codes of C clips.

        Args:
            codes: [frames of all clips, Q], the clips one after another.
            lengths: [C] frames of each clip.
            weights: of these clips, `Labels.weights`.

        Raises:
            CodesError: if the codes are not those of such a codec.
        """
        if codes.ndim != 2 or codes.shape[1] != self.codebooks or len(codes) != lengths.sum():
            raise CodesError(f"codes of shape {codes.shape}: expected {(int(lengths.sum()), self.codebooks)}")
        if codes.size and not 0 <= codes.min() <= codes.max() < self.entries:
            raise CodesError(f"codes from {codes.min()} to {codes.max()}: expected 0 to {self.entries - 1}")
        self.clips += len(lengths)
        wide, ones = codes.astype(np.int64), np.ones(len(codes), np.int64)
        places = wide + self.entries * np.arange(self.codebooks)
        self.alone += np.bincount(places.ravel(), minlength=self.alone.size).reshape(self.alone.shape)
        square = (self.entries, self.entries)
        for book in range(self.codebooks - 1):
            self.neighbours[book] += csr_array((ones, (wide[:, book], wide[:, book + 1])), shape=square)
        if weights is not None and self.labels:
            of_clip = np.repeat(np.arange(len(lengths)), lengths)
            for book in range(self.codebooks):
                within = csr_array((ones, (of_clip, wide[:, book])), shape=(len(lengths), self.entries))
                self.labelled[book] += within.T @ weights

    def used(self) -> np.ndarray:
        """Return how many entries of each codebook [Q] occur; the others are dead."""
        return np.asarray(np.count_nonzero(self.alone, axis=1))

    def entropies(self) -> np.ndarray:
        """Return the entropy of each codebook's entries [Q], in 0 .. log2(K); the perplexity is 2 to its power."""
        return np.asarray(entropy(self.alone, base=2, axis=1))

    def neighbour_information(self) -> np.ndarray:
        """Return the mutual information of each codebook with the next [Q - 1] (`corrected_information`)."""
        pairs = zip(self.neighbours, self.alone[:-1], self.alone[1:], strict=True)
        return np.array([corrected_information(joint.data, one, other) for joint, one, other in pairs])

    def label_information(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the mutual information [Q] of entries and labels, and what it is where labels are shuffled.

        Of clips with several labels, the label is one of these, drawn by chance. The frames of a clip are not
        independent observations of its label, so no formula tells the bias: it is measured, over shuffled labels.
        """
        tables = self.labelled.reshape(self.codebooks, self.entries, 1 + SHUFFLES, self.labels)
        found = np.array(
            [[information(tables[book, :, n]) for n in range(1 + SHUFFLES)] for book in range(len(tables))]
        )
        return found[:, 0], found[:, 1:].mean(1)


def information(joint: np.ndarray) -> float:
    """Return the mutual information of the two variables of a table of counts [A, B], in bits, without a correction."""
    return float(entropy(joint.sum(1), base=2) + entropy(joint.sum(0), base=2) - entropy(joint.ravel(), base=2))


def corrected_information(joint: np.ndarray, one: np.ndarray, other: np.ndarray) -> float:
    """Return a mutual information in bits, each of its entropies corrected as Miller and Madow (1955) do.

    An entropy of counts is too low by about (cells that occur - 1) / 2N nats, so the information is too high, and most
    where there are many cells: H(X) + H(Y) - H(X, Y) + (cells of X + cells of Y - cells of both - 1) / 2N. That of
    independent variables is 0 on average, and may be below.

    Args:
        joint: counts of the cells of both, [any number of cells]; cells of zero do not matter.
        one, other: counts of either alone, of the same N observations.
    """
    cells = np.count_nonzero(one) + np.count_nonzero(other) - np.count_nonzero(joint) - 1
    plain = entropy(one, base=2) + entropy(other, base=2) - entropy(joint.ravel(), base=2)
    return float(plain + cells / (2 * one.sum() * np.log(2)))
