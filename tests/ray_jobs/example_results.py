"""Results as search and combine write them, with made-up values, for tests of the jobs that read them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ray_jobs.experiment.config import Experiment
from ray_jobs.results.best import BestReranking, BestRetrieval, BestSampling
from ray_jobs.results.metrics import (
    CaptioningDetails,
    Detection,
    EnsembleMetrics,
    ForwardSelection,
    LeftOut,
    SelectionStep,
    SystemComparison,
)

WORTH: dict[str, Any] = {
    "cross_validated": 0.38, "optimism": 0.02, "best_value": 0.42, "rule": "one-standard-error", "split": "validation",
    "seed": 0,
}  # fmt: skip
WITHIN = {"within_one_standard_error": 7}


def best_sampling(experiment: Experiment, **changes: Any) -> BestSampling:
    found = {
        "objective": "cider_d", "value": 0.4, "clips": 16, "trials": 12, "trials_on_all_clips": 9, "generating_s": 9.0,
        "trial_s": 10.0, "elapsed_s": 12.0, "overhead": None,
    }  # fmt: skip
    return experiment.sampling.convert(BestSampling, **(WORTH | found | changes))


def best_reranking(experiment: Experiment, **changes: Any) -> BestReranking:
    names = [*experiment.of_kind("retriever"), "decoder"]
    means = {"cider_d": 0.41, "fluency_error": 0.1}
    found = {
        "weights": dict.fromkeys(names, 1 / len(names)), "normalisation": "z", "fluency_threshold": 0.9,
        "captioners": None, "encoder_score": "cosine", "fallback": "best", "objective": "cider_d", "value": 0.41,
        "filtered": means, "unfiltered": means,
        "absent": {"fense": f"no /{'cache/' * 12}echecker_clotho_audiocaps_base.ckpt"},
    }  # fmt: skip
    return BestReranking(**(WORTH | WITHIN | found | changes))


def best_retrieval(experiment: Experiment, **changes: Any) -> BestRetrieval:
    names = experiment.of_kind("retriever")
    found = {"weights": dict.fromkeys(names, 1 / len(names)), "normalisation": "z", "rrf_k": 60, "map_at_10": 0.41}
    return BestRetrieval(**(WORTH | WITHIN | found | changes))


def ensemble_metrics(experiment: Experiment, clips: int = 10, **changes: Any) -> EnsembleMetrics:
    rng = np.random.default_rng(0)
    captioners, retrievers = experiment.of_kind("captioner"), experiment.of_kind("retriever")
    singles = [f"{name}/{how}" for name in captioners for how in ("beam", "rerank")]
    metrics = ["cider_d", "rouge_l", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "fluency_error"]
    described = {"unique_captions": clips, "vocab.cands": 34.0, "vocab.f1": 0.5}
    captioning = {system: _values(metrics, rng) | described for system in [*singles, "ensemble"]}
    ranked, recalls = [*retrievers, "ensemble"], ["map@10", "r@1", "r@5", "r@10"]
    compared = [("cider_d", single) for single in singles] + [("map@10", single) for single in retrievers]
    steps = [
        SelectionStep(added=[name], parameters=1_234_567, cross_validated=0.3, taken=name == retrievers[0])
        for name in retrievers
    ]
    found = EnsembleMetrics(
        corpus=experiment.target_corpus,
        corpus_kind=experiment.corpora[experiment.target_corpus].kind,
        split="test",
        clips=clips,
        seed=0,
        commit="0123456789ab",
        packages={"aac-metrics": "0.6.0"},
        captioning=captioning,
        captioning_details=CaptioningDetails(
            library="aac-metrics 0.6.0",
            preprocessing="plain",
            absent={"spice": "needs Java 8 to 13"},
            diversity={"unique_share": 1.0},
            unfiltered=captioning["ensemble"],
        ),
        retrieval={system: _values(recalls, rng) for system in ranked},
        retrieval_audio_to_text={system: _values(recalls, rng) for system in ranked},
        retrieval_details={"retrieval": "text to audio"},
        retrieval_chance=0.29,
        comparisons=[
            SystemComparison(
                metric=metric, a="ensemble", b=other, delta=0.0125 * n, ci95=(0.0125 * n - 0.03, 0.0125 * n + 0.041)
            )
            for n, (metric, other) in enumerate(compared)
        ],
        leave_one_out=[
            LeftOut(
                task="retrieval",
                metric="map@10",
                without=retrievers[0],
                dependents=[],
                value_without=0.375,
                adds=0.0625,
                ci95=(-0.0125, 0.1375),
            )
        ],
        forward_selection=ForwardSelection(budget=None, latency_budget=None, captioning=[], retrieval=steps),
        fluency_detector=Detection.model_validate(
            {
                "threshold": 0.9,
                "captions": 3 * clips,
                "flagged": 0.125,
                "damage": {"remove_verb": {"captions": 24, "precision": None, "recall": 0.75}},
            }
        ),
    )
    return found.model_copy(update=changes)


def _values(metrics: list[str], rng: np.random.Generator) -> dict[str, int | float]:
    return dict(zip(metrics, rng.uniform(0, 1, len(metrics)).tolist(), strict=True))
