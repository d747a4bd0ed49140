"""Search weights of scores and groups of captioners, on the candidates of all validation clips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from models.ensemble.candidate_table import CandidateTable, ValuedTable
from models.ensemble.reranking import Reranking, allowed_candidates, normalise
from models.ensemble.scores.base import weight_name
from models.ensemble.scores.consensus import CONSENSUS
from models.ensemble.scores.decoder import DECODER
from models.metrics.captions import DEFAULT_METRICS, NOT_OF_CANDIDATES, missing_parts
from models.selection.reranking_weights import ENCODER_WEIGHT, encoder_share, search_reranking
from models.selection.weight_surface import THRESHOLDS, behind_best, reranking_surface
from models.settings import SamplingConfig
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.search_config import SearchConfig
from ray_jobs.results.best import BestReranking, SearchOutcome
from ray_jobs.tuning.candidate_store import SPLIT, CandidateStore, build_all
from ray_jobs.tuning.inner_search import mixtures, reranking_options
from ray_jobs.tuning.parallel import ray_map

SURFACE_STEPS = 50
# With and without the filter these two are always reported where they can be: SBERT-sim ignores fluency errors.
BESIDE_THE_FILTER = ("sbert_sim", "fense")


def candidate_metrics(search: SearchConfig) -> list[str]:
    """Return the metrics by which every candidate is valued: the objective, and all others that this machine has."""
    of_candidates = [metric for metric in DEFAULT_METRICS if metric not in NOT_OF_CANDIDATES]
    others = (metric for metric in of_candidates if metric != search.objective and not missing_parts(metric))
    return [search.objective, *others]


def search_weights(
    experiment: Experiment, clip_ids: list[str], sampling: SamplingConfig
) -> SearchOutcome[BestReranking]:
    """Choose the weights for candidates of this sampling.

    Its tables are all weightings tried, the candidates, and the surface over encoder weight and fluency threshold.
    """
    search = experiment.search
    build_all(experiment, sampling, len(clip_ids), candidate_metrics(search))
    known = CandidateStore(experiment, sampling).read(clip_ids, search, len(clip_ids))
    table, value = known.table, known.values[search.objective]
    options, everybody = reranking_options(experiment), experiment.caption_sources()
    found = search_reranking(table, value, mixtures(experiment), options, ray_map)
    whole = found.reranking.captioners == everybody
    reranking = found.reranking.model_copy(update={"captioners": None}) if whole else found.reranking
    by_itself = replace(options, normalisation=reranking.normalisation)
    alone = ray_map(
        lambda name: search_reranking(_by_itself(table, name), value, [[name]], by_itself).reranking, everybody
    )
    solution = found.solution
    best = reranking.convert(
        BestReranking,
        objective=search.objective,
        value=solution.value,
        cross_validated=solution.cross_validated,
        optimism=solution.optimism,
        best_value=found.best_value,
        rule=solution.rule,
        filtered=_means(reranking, known),
        unfiltered=_means(reranking.model_copy(update={"fluency_threshold": 1.0}), known),
        absent={metric: reason for metric in BESIDE_THE_FILTER if (reason := missing_parts(metric))},
        alone=dict(zip(everybody, alone, strict=True)),
        split=SPLIT,
        seed=experiment.seed,
    )
    frames = {
        "trials": found.trials.rename(columns={"value": search.objective}),
        "systems": found.systems.rename(columns={"value": search.objective}),
        "candidates": table.to_frame(clip_ids, known.values),
        "surface": _surface(search, table, value, found.reranking, experiment.seed),
    }
    return SearchOutcome(best, frames)


def _by_itself(table: CandidateTable, captioner: str) -> CandidateTable:
    """Return the table without the scores that come of other captioners."""
    own = table.judged_by([captioner])
    return replace(own, scores={column: one for column, one in own.scores.items() if not column.startswith(CONSENSUS)})


def _means(reranking: Reranking, known: ValuedTable) -> dict[str, float]:
    """Return the means over clips of the chosen candidates' values, by metric.

    The detector that filters candidates cannot prove that filtering helps: all values are given with and without it.
    """
    chosen = reranking.choose(known.table)
    clips = np.arange(len(chosen))
    means = {metric: float(value[clips, chosen].mean()) for metric, value in known.values.items()}
    return means | {"fluency_error": float(known.table.fluency_error[clips, chosen].mean())}


def _surface(
    search: SearchConfig, table: CandidateTable, value: np.ndarray, reranking: Reranking, seed: int
) -> pd.DataFrame:
    """Return the value over encoder weight and fluency threshold; the two weights are parts of what both have together.

    Retrievers share the encoder's weight as chosen, and other scores than encoder and decoder keep theirs. Empty where
    encoder or decoder scores have no part in the choice.
    """
    weights = reranking.weights
    table = table.with_scores(weights)
    if not table.encoder_score or DECODER not in table.scores:
        return pd.DataFrame()
    table = table if reranking.captioners is None else table.of_members(reranking.captioners)
    scores = _encoder_and_decoder(table, weights, reranking.normalisation)
    # the share that was chosen and the paper's, beside an even grid
    chosen = encoder_share(weights, table.encoder_score)
    at = np.unique(np.round([*np.linspace(0, 1, SURFACE_STEPS + 1), ENCODER_WEIGHT, chosen], 9))
    thresholds = np.unique([*THRESHOLDS, search.fluency_threshold])
    allowed = [allowed_candidates(table.fluency_error, table.mask, at_most, search.fallback) for at_most in thresholds]
    values = reranking_surface(scores, allowed, value, at)
    behind = behind_best(values.reshape(-1, values.shape[2]), seed=seed)
    return pd.DataFrame(
        {
            "encoder_weight": np.tile(at, len(thresholds)),
            "decoder_weight": 1 - np.tile(at, len(thresholds)),
            "fluency_threshold": np.repeat(thresholds, len(at)),
            search.objective: values.mean(2).ravel(),
            "behind": behind.delta,
            "low": behind.low,
            "high": behind.high,
            "tied_with_best": behind.tied_with_best,
        }
    )


def _encoder_and_decoder(table: CandidateTable, weights: dict[str, float], normalisation: str) -> np.ndarray:
    """Return the two scores [2, C, K] that the surface weighs, with the part of all others in both."""
    scores = zip(table.score_names, table.stacked_scores, strict=True)
    scaled = {name: normalise(score, table.mask, normalisation) for name, score in scores}
    decoder = scaled.pop(weight_name(DECODER))
    encoders = [scaled.pop(name) for name in table.encoder_score]
    shares = np.array([weights[name] for name in table.encoder_score])
    shares = shares / shares.sum() if shares.sum() else np.full(len(shares), 1 / len(shares))
    encoder = np.tensordot(shares, np.stack(encoders), 1)
    if scaled:
        rest, left = sum(weights[name] * score for name, score in scaled.items()), 1 - sum(weights[n] for n in scaled)
        encoder, decoder = left * encoder + rest, left * decoder + rest
    return np.stack([encoder, decoder])
