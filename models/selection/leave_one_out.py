"""Measure what each member adds to the ensemble, and choose members where not all fit.

Everything is decided on validation: for each group of members the weights are searched anew, as they would be if the
others had never been trained. Only then is the group valued, on the table that is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..ensemble.candidate_table import CandidateTable
from ..ensemble.reranking import Reranking
from ..ensemble.retrieval_fusion import RetrievalFusion
from ..ensemble.scores.fluency import FLUENCY
from ..metrics.bootstrap import Comparison, paired_bootstrap
from .reranking_weights import RerankingFound, RerankingOptions, search_reranking, weigh_group
from .retrieval_weights import RetrievalOptions, search_retrieval


@dataclass(frozen=True)
class Group:
    """Members that work together: captioners propose, retrievers score, the fluency detector filters.

    `captioners` includes token ensembles: they propose other captions than their members do alone.
    """

    captioners: tuple[str, ...] = ()
    retrievers: tuple[str, ...] = ()
    detector: str | None = None

    @property
    def members(self) -> tuple[str, ...]:
        return (*self.captioners, *self.retrievers, *((self.detector,) if self.detector else ()))

    def without(self, *members: str) -> Group:
        """Return the group of the others."""
        return Group(
            tuple(name for name in self.captioners if name not in members),
            tuple(name for name in self.retrievers if name not in members),
            None if self.detector in members else self.detector,
        )

    def with_members(self, names: Iterable[str], of: Group) -> Group:
        """Return the group with `names` added, in the order in which `of` has them."""
        wanted = {*self.members, *names}
        detector = of.detector if of.detector in wanted else None
        captioners, retrievers = (
            tuple(name for name in names if name in wanted) for names in (of.captioners, of.retrievers)
        )
        return Group(captioners, retrievers, detector)


@dataclass(frozen=True)
class Added:
    """The gain by a member: the values with all members minus those of the ensemble without it."""

    member: str
    dependents: list[str]  # members that cannot work without it, and are left out with it
    value_without: float
    comparison: Comparison


@dataclass(frozen=True)
class Step:
    """A step of the forward selection: the members added, and the value of all added so far."""

    added: list[str]
    costs: dict[str, float]  # of all members added so far, by the name of the budget
    value: float  # cross-validated


@dataclass(frozen=True)
class Budget:
    """The cost of each member, and how much they may cost together; None is no limit."""

    costs: Mapping[str, float]
    limit: float | None = None

    def of(self, group: Group) -> float:
        """Return the cost of a group."""
        return sum(self.costs[name] for name in group.members)


def solve_captioning(group: Group, table: CandidateTable, value: np.ndarray, options: RerankingOptions) -> Reranking:
    """Return the reranking that a group would use.

    Args:
        table: that of the validation split, with every member's candidates and scores.
        value: [C, K] of each candidate.
    """
    return weigh_group(_scored_by(group, table), value, list(group.captioners), _filtering(group, options))


def search_captioning(
    group: Group, table: CandidateTable, value: np.ndarray, options: RerankingOptions
) -> RerankingFound:
    """Return what a cross-validated search finds for a group; arguments as for `solve_captioning`."""
    return search_reranking(_scored_by(group, table), value, [list(group.captioners)], _filtering(group, options))


def _filtering(group: Group, options: RerankingOptions) -> RerankingOptions:
    return options if group.detector else replace(options, fluency_threshold=1.0)


def choose_captions(group: Group, reranking: Reranking, table: CandidateTable) -> np.ndarray:
    """Return the index [C] of the candidate that a group chooses for each clip."""
    return reranking.choose(_scored_by(group, table))


def _scored_by(group: Group, table: CandidateTable) -> CandidateTable:
    """Return the table with the scores that the group's members give, consensus among its own candidates."""
    if group.detector is None:
        table = replace(table, scores={name: one for name, one in table.scores.items() if name != FLUENCY})
    heard = table.without_retrievers(set(table.encoder_score) - set(group.retrievers))
    return heard.judged_by(group.captioners).agreeing(group.captioners)


def solve_retrieval(
    names: tuple[str, ...], similarities: Mapping[str, np.ndarray], target: np.ndarray, options: RetrievalOptions
) -> tuple[RetrievalFusion, float]:
    """Return the fusion that some retrievers would use, and its cross-validated mAP@10 on validation similarities."""
    found = search_retrieval({name: similarities[name] for name in names}, target, options)
    return found.fusion, found.solution.cross_validated


def leave_one_out(
    everybody: Group,
    members: Mapping[str, Sequence[str]],
    full: np.ndarray,
    values_of: Callable[[Group], np.ndarray],
    seed: int,
    groups: np.ndarray | None = None,
) -> list[Added]:
    """Measure what each of `members` adds.

    Args:
        members: each with its dependents, such as the token ensembles that it is part of, which are left out with it.
        full: [N] values of the ensemble of all members.
        values_of: returns [N] values of the same items by a smaller ensemble.
        groups: as for `paired_bootstrap`.
    """
    added = []
    for member, dependents in members.items():
        without = values_of(everybody.without(member, *dependents))
        comparison = paired_bootstrap(full, without, seed=seed, groups=groups)
        added.append(Added(member, list(dependents), float(without.mean()), comparison))
    return added


def forward_selection(
    everybody: Group,
    value_of: Callable[[Group], float],
    needs: Mapping[str, Sequence[str]],
    budgets: Mapping[str, Budget],
    first: Iterable[str],
) -> list[Step]:
    """Add members one by one, each time the one that makes the value highest, as long as they fit every budget.

    It goes on where a member lowers the value, so that the whole course is seen; the members to take are those up to
    its highest value.

    Args:
        value_of: returns the cross-validated value of a group.
        needs: the members that a member cannot work without; they are added together.
        budgets: by name, such as parameters or seconds.
        first: what the selection may begin with.
    """
    here, steps, starts = Group(), list[Step](), set(first)
    while True:
        options = {}
        for member in everybody.members:
            if member in here.members or (not steps and member not in starts):
                continue
            new = [name for name in (member, *needs.get(member, ())) if name not in here.members]
            group = here.with_members(new, everybody)
            if all(budget.limit is None or budget.of(group) <= budget.limit for budget in budgets.values()):
                options[member] = new, group
        if not options:
            return steps
        worth = {member: value_of(group) for member, (_, group) in options.items()}
        new, here = options[max(worth, key=lambda member: worth[member])]
        costs = {name: budget.of(here) for name, budget in budgets.items()}
        steps.append(Step(new, costs, max(worth.values())))
