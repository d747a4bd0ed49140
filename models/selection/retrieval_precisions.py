"""Compute the average precision of fused retrievers under many weightings, from what it depends on alone.

Queries are rows of similarities, and what they rank are columns: clips for a caption, or captions for a clip. A right
column's position depends on how many others are ahead of it, and most are ahead under all weights or under none: they
are counted once. Along a line between two weightings, the lead of another over the right one is a straight line, too,
so a position changes only where such a line crosses zero; no grid is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..ensemble.score_arrays import CHUNK_CELLS, weighted_sum
from ..metrics.retrieval import CUTOFF
from .weight_search import TwoScoreCurve, curve


@dataclass(frozen=True)
class RightAnswers:
    """A right answers to queries, and their rivals: the wrong ones that are ahead under some weights alone.

    Scores are of S retrievers; weights [S] are not negative. A rival that is equally similar counts as ahead.
    """

    group: np.ndarray  # [A] the query of each; those of one query are side by side
    scores: Sequence[np.ndarray]  # S of [A]
    ahead: np.ndarray  # [A] wrong answers that are ahead under all weights
    rivals: Sequence[np.ndarray]  # S of [E], those of one answer after those of another
    number: np.ndarray  # [A] rivals of each; 0 where it can never be among the first ten

    @classmethod
    def among(
        cls, scores: Sequence[np.ndarray], rows: np.ndarray, columns: np.ndarray, group: np.ndarray
    ) -> RightAnswers:
        """Find the rivals of answers at (rows[a], columns[a]) of S scores [queries, things ranked]."""
        ahead, number = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        rivals: list[list[np.ndarray]] = [[np.empty(0, one.dtype)] for one in scores]
        first, size = _groups(group)
        for block in np.array_split(np.arange(len(rows)), 1 + rows.size * scores[0].shape[1] // CHUNK_CELLS):
            theirs = [one[rows[block]] for one in scores]
            reaches = [one >= one[np.arange(len(block)), columns[block]][:, None] for one in theirs]
            some, every = np.logical_or.reduce(reaches), np.logical_and.reduce(reaches)
            of, right = ranges(first[block], size[block])
            some[of, columns[right]] = every[of, columns[right]] = False  # no right answer is a rival
            ahead[block] = np.count_nonzero(every, axis=1)
            some &= ~every & (ahead[block] < CUTOFF)[:, None]
            number[block] = np.count_nonzero(some, axis=1)
            for found, one in zip(rivals, theirs, strict=True):
                found.append(one[some])
        return cls(
            group, [one[rows, columns] for one in scores], ahead, [np.concatenate(one) for one in rivals], number
        )

    def part(self, answers: np.ndarray, group: np.ndarray) -> RightAnswers:
        """Return some answers, which may repeat, as those of other queries."""
        _, cells = ranges((np.cumsum(self.number) - self.number)[answers], self.number[answers])
        return RightAnswers(
            group=group,
            scores=[one[answers] for one in self.scores],
            ahead=self.ahead[answers],
            rivals=[one[cells] for one in self.rivals],
            number=self.number[answers],
        )

    def precisions(self, weights: np.ndarray) -> np.ndarray:
        """Return what each answer [A] adds to the average precision at 10 of its query.

        With R right answers at positions p_1 < p_2 < ..., that of a query is the sum of i / p_i over those within the
        first ten, divided by R (as WavCaps and m-LTM count it).
        """
        total = weighted_sum(self.scores, weights)
        first, size = _groups(self.group)
        order = np.lexsort((-total, np.cumsum(first == np.arange(len(first)))))  # groups stay where they are
        place = np.empty(len(total), np.int64)
        place[order] = np.arange(len(total)) - first + 1
        leads = np.cumsum(weighted_sum(self.rivals, weights) >= np.repeat(total, self.number))
        until = np.concatenate([[0], leads])[np.cumsum(self.number)]
        return _worth(place, place + self.ahead + np.diff(until, prepend=0), size)

    def along(self, start: np.ndarray, end: np.ndarray, queries: int) -> TwoScoreCurve:
        """Compute the mean average precision over `queries` on the line from weights `start` to `end`."""
        first, size = _groups(self.group)
        of_pair, other = ranges(first, size)  # right answers of one query overtake each other, too
        of = np.concatenate([np.repeat(np.arange(len(size)), self.number), of_pair])
        right = np.arange(len(of)) >= len(of) - len(of_pair)
        wins = np.concatenate([np.ones(len(of) - len(of_pair), bool), other < of_pair])  # where equally similar

        def leads(weights: np.ndarray) -> np.ndarray:
            total = weighted_sum(self.scores, weights)
            lead: np.ndarray = np.concatenate([weighted_sum(self.rivals, weights), total[other]]) - total[of]
            return lead

        def ahead(lead: np.ndarray) -> np.ndarray:
            found: np.ndarray = (lead > 0) | ((lead == 0) & wins)
            return found

        def count(flags: np.ndarray) -> np.ndarray:
            return np.bincount(of, flags, minlength=len(size))

        lead_at_0, lead_at_1 = leads(start), leads(end)
        at_0, at_1 = ahead(lead_at_0), ahead(lead_at_1)
        place, position = 1 + count(at_0 & right), 1 + self.ahead + count(at_0)
        reachable = position - count(at_0 & ~at_1) <= CUTOFF
        event = np.flatnonzero((at_0 != at_1) & reachable[of])
        at = lead_at_0[event] / (lead_at_0[event] - lead_at_1[event])
        order = np.argsort(at + 2 * of[event])  # of one answer after those of another
        at, event = at[order], event[order]
        answer, step = of[event], np.where(at_1[event], 1, -1)
        begins, _ = _groups(answer)
        moved = position[answer] + _running(step, begins)
        placed = place[answer] + _running(step * right[event], begins)
        change = _worth(placed, moved, size[answer])
        change -= _worth(placed - step * right[event], moved - step, size[answer])
        changes = change != 0
        return curve(at[changes], change[changes], float(_worth(place, position, size).sum()), queries)


def ranges(first: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers first[i] to first[i] + size[i] - 1 of all i in one array, after the i of each."""
    of = np.repeat(np.arange(len(size)), size)
    return of, np.arange(len(of)) + (first - np.cumsum(size) + size)[of]


def _groups(group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first place [A] and the size [A] of the group that each is in."""
    begins = np.flatnonzero(np.diff(group, prepend=-1))
    size = np.diff(begins, append=len(group))
    return np.repeat(begins, size), np.repeat(size, size)


def _worth(place: np.ndarray, position: np.ndarray, right: np.ndarray) -> np.ndarray:
    worth: np.ndarray = np.where(position <= CUTOFF, place / position, 0) / right
    return worth


def _running(steps: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Return the sums [E] of the steps from begins[e] to e."""
    total = np.cumsum(steps)
    found: np.ndarray = total - (total - steps)[begins]
    return found
