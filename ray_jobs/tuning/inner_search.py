"""Search the reranking weights of one sampling setting: what values a trial, and what the chosen setting is given."""

from __future__ import annotations

from dataclasses import replace

from models.selection.reranking_weights import RerankingOptions, mixtures_of, search_reranking
from models.selection.rules import Solution
from ray_jobs.experiment.config import Experiment
from ray_jobs.tuning.candidate_store import CandidateStore

TRIAL_STARTS = 2  # of the climbs that value a sampling setting


def reranking_options(experiment: Experiment) -> RerankingOptions:
    """Return the options of the experiment's reranking searches."""
    s = experiment.search
    return RerankingOptions(
        normalisation=s.normalisation,
        fluency_threshold=s.fluency_threshold,
        rule=s.rule,
        folds=s.folds,
        seed=experiment.seed,
        encoder_score=s.encoder_score,
        fallback=s.fallback,
        scores=tuple(s.scores) if s.scores else None,
        eligible=s.eligible,
    )


def quick(options: RerankingOptions) -> RerankingOptions:
    """Return options for searches that are made many times: one group, rule and normalisation instead of several.

    Of the rules that search, `learned` takes the least time, and follows luck the least.
    """
    return replace(
        options,
        rule="learned" if options.rule == "auto" else options.rule,
        normalisation="z" if options.normalisation == "auto" else options.normalisation,
        starts=TRIAL_STARTS,
        compare_groups=False,
    )


def mixtures(experiment: Experiment) -> list[list[str]]:
    """Return the groups of captioners that are compared."""
    captioners = experiment.caption_sources()
    return mixtures_of(captioners) if experiment.search.mixtures else [captioners]


def solve(experiment: Experiment, store: CandidateStore, clip_ids: list[str], clips: int) -> Solution:
    """Search the weights by the objective on the first `clips` clips of a sampling setting, with all captioners."""
    known = store.read(clip_ids, experiment.search, clips)
    value = known.values[experiment.search.objective]
    everybody = [experiment.caption_sources()]
    return search_reranking(known.table, value, everybody, quick(reranking_options(experiment))).solution
