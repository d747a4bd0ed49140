"""The model card of a bundle: README.md, with the front matter that the Hugging Face hub reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from corpora.soundscapes.corpus import KIND
from models.console import count
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.licences import corpus_uses
from ray_jobs.experiment.member_config import CaptionerMember, FluencyDetectorMember, Member, RetrieverMember
from ray_jobs.reporting.charts import label
from ray_jobs.reporting.notice import public_name
from ray_jobs.reporting.task_results import ENSEMBLE
from ray_jobs.results.metrics import EnsembleMetrics, Systems

CARD = "README.md"
TASKS = {"retriever": "retrieval", "captioner": "captioning", "fluency-detector": "fluency of captions"}


@dataclass(frozen=True)
class Row:
    """A row of the table of results: the ensemble against the best single system, by one metric."""

    task: str
    metric: str
    value: float
    single: str
    single_value: float
    delta: float
    ci95: tuple[float, float]


def model_card(experiment: Experiment, metrics: EnsembleMetrics | None = None, dtype: str = "fp32") -> str:
    """Return the card of an ensemble of an experiment's members.

    Args:
        metrics: its values on test, where `combine` has computed them for these members.
        dtype: in which its matrices are stored; the values are of fp32.
    """
    results = [] if metrics is None else [*_rows(metrics)]
    captioners, retrievers = (len(experiment.of_kind(kind)) for kind in ("captioner", "retriever"))
    data = ModelCardData(
        license="other",  # the hub takes links to LICENSE alone; the card links to NOTICE
        license_name="see-notice",
        library_name="enclap",
        tags=["audio", "audio-captioning", "text-to-audio-retrieval", "ensemble", "arxiv:2409.01160"],
        metrics=[row.metric for row in results] or None,
        model_name=experiment.name,
        eval_results=[_evaluated(row, metrics) for row in results if metrics] or None,
    )
    template = files("ray_jobs.reporting").joinpath("templates", "model_card.md").read_text(encoding="utf-8")
    return ModelCard.from_template(
        data,
        template_str=template,
        name=experiment.name,
        parts=f"{count(captioners, 'captioner')} and {count(retrievers, 'retriever')}",
        built_in={corpus.kind for corpus in experiment.corpora.values()} == {KIND},
        members=[
            {"name": name, "task": TASKS[member.kind], "made_of": _made_of(member)}
            for name, member in experiment.ensemble().items()
        ],
        label=label,
        metrics=metrics,
        results=results,
        max_duration_s=experiment.features.max_duration_s,
        corpora=corpus_uses(experiment),
        dtype=dtype,
    ).content


def _rows(metrics: EnsembleMetrics) -> Iterator[Row]:
    """Yield a row for each metric that systems are compared by."""
    for metric in dict.fromkeys(one.metric for one in metrics.comparisons):
        systems, task = _systems_with(metrics, metric)
        compared = {one.b: one for one in metrics.comparisons if one.metric == metric and one.a == ENSEMBLE}
        singles = [name for name in compared if name in systems and not name.startswith(ENSEMBLE)]
        if not singles or ENSEMBLE not in systems:
            continue
        best = max(singles, key=lambda name: float(systems[name][metric]))
        yield Row(
            task=task,
            metric=metric,
            value=float(systems[ENSEMBLE][metric]),
            single=best,
            single_value=float(systems[best][metric]),
            delta=compared[best].delta,
            ci95=compared[best].ci95,
        )


def _systems_with(metrics: EnsembleMetrics, metric: str) -> tuple[Systems, str]:
    """Return the systems that a metric measures, and their task."""
    retrieves = any(metric in values for values in metrics.retrieval.values())
    return (metrics.retrieval, "text-to-audio retrieval") if retrieves else (metrics.captioning, "audio captioning")


def _evaluated(row: Row, metrics: EnsembleMetrics) -> EvalResult:
    return EvalResult(
        task_type=row.task.replace(" ", "-"),
        dataset_type=metrics.corpus_kind,
        dataset_name=metrics.corpus,
        dataset_split=metrics.split,
        metric_type=row.metric,
        metric_value=round(row.value, 4),
    )


def _made_of(member: Member) -> str:
    """Return what a member consists of; of models in directories of this machine the last part of their path."""
    if isinstance(member, RetrieverMember):
        audio = member.audio_encoder
        return f"{public_name(audio.transformer or audio.backbone)} and {public_name(member.text_encoder.name)}"
    if isinstance(member, CaptionerMember):
        heard = ", ".join(member.retrievers())
        reads = f"with the audio embedding of {heard}" if heard else "which reads codes alone"
        return f"{public_name(member.language_model)}, {reads}"
    return public_name(member.text_encoder.name) if isinstance(member, FluencyDetectorMember) else ""
