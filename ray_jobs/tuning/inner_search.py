"""Search the reranking weights of one sampling setting: what values a trial, and what the chosen setting is given."""

from __future__ import annotations

from models.selection.reranking_weights import RerankingFound, RerankingOptions, mixtures_of, search_reranking
from ray_jobs.experiment.config import Experiment
from ray_jobs.tuning.candidate_store import CandidateStore


def reranking_options(experiment: Experiment) -> RerankingOptions:
    """Return the options of the experiment's reranking searches."""
    s = experiment.search
    return RerankingOptions(
        normalisation=s.normalisation,
        fluency_threshold=s.fluency_threshold,
        weight_steps=s.weight_steps,
        rule=s.rule,
        folds=s.folds,
        seed=experiment.seed,
        encoder_score=s.encoder_score,
        fallback=s.fallback,
    )


def mixtures(experiment: Experiment) -> list[list[str]]:
    """Return the groups of captioners that are compared."""
    captioners = experiment.caption_sources()
    return mixtures_of(captioners) if experiment.search.mixtures else [captioners]


def solve(experiment: Experiment, store: CandidateStore, clip_ids: list[str], clips: int) -> RerankingFound:
    """Search the weights by the objective on the first `clips` clips of a sampling setting."""
    known = store.read(clip_ids, experiment.search, clips)
    return search_reranking(
        known.table, known.values[experiment.search.objective], mixtures(experiment), reranking_options(experiment)
    )
