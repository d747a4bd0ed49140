"""Look at the similarities that a run's retrievers give matched and mismatched pairs of its test split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from models.console import progress_bar
from models.errors import TooFewClipsError
from models.metrics.retrieval import flatten_captions
from models.pairs import compare_pairs, distance
from models.retriever.collapse import collapse_warnings, mean_cosines
from models.retriever.model import Retriever, negative_distances
from models.retriever.pair_statistics import PairStatistics
from ray_jobs.experiment.config import Experiment
from ray_jobs.features.dataset import Features, read_features, require_features
from ray_jobs.features.embeddings import are_there, read_embeddings, weights_checksum
from ray_jobs.reporting.charts import THEME, chart, figure
from ray_jobs.results.member import MemberMetrics, checked_weights
from ray_jobs.results.similarity import Histogram, RetrieverSimilarity, Similarities
from ray_jobs.run import storage
from ray_jobs.run.directory import NotReadyError, RunDirectory, require
from ray_jobs.run.session import reserved_device

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPLIT = "test"
BLOCK_CELLS = 1 << 22  # similarities that are held at a time
TEXTS_AT_ONCE = 1024  # between two steps of the progress bar
DASHES = ("solid", "dashed", "dotted", "dashdot")


def similarities_of(experiment: Experiment) -> Similarities:
    """Compare the pairs of every retriever of the ensemble; nothing is written to the run.

    Raises:
        NotReadyError: if the run is not prepared, or a retriever is not trained.
        FeaturesError, RecordError: if features or a member cannot be read.
        TooFewClipsError: if there is only one test clip.
    """
    directory, names = RunDirectory(experiment), experiment.of_kind("retriever")
    if not names:
        raise NotReadyError(f"{storage.uri(directory.root)}: has no retriever, whose similarities there would be")
    require_features(directory)
    for name in names:
        require(directory.member(name), directory.member_inputs(name), "train", experiment.name, experiment.time_limit)
    features = read_features([directory.features(experiment.target_corpus, SPLIT)])
    if len(features) < 2:
        raise TooFewClipsError(f"{storage.uri(directory.root)}: has one test clip, mismatched pairs need two")
    return Similarities(
        name=experiment.name,
        place=storage.uri(directory.root),
        corpus=experiment.target_corpus,
        corpus_kind=experiment.corpora[experiment.target_corpus].kind,
        split=SPLIT,
        seed=experiment.seed,
        clips=len(features),
        texts=sum(map(len, features.captions)),
        retrievers=[_of_retriever(directory, name, features) for name in names],
    )


def _of_retriever(directory: RunDirectory, name: str, features: Features) -> RetrieverSimilarity:
    retriever = Retriever.load(checked_weights(directory.member(name))).to(reserved_device())
    texts, target = flatten_captions(features.captions)
    audio = _audio_embeddings(directory, name, retriever, features)
    with progress_bar(len(texts), "texts", f"similarity: {name}") as bar:
        said = []
        for at in range(0, len(texts), TEXTS_AT_ONCE):
            said.append(retriever.text_embeddings(texts[at : at + TEXTS_AT_ONCE]))
            bar.update(len(said[-1]))
    text = np.concatenate(said)
    cosines = mean_cosines(text_cosine=text, audio_cosine=audio)
    found = _statistics(retriever.under_metric(text), retriever.under_metric(audio), target)
    trained, (edges, matched, mismatched) = MemberMetrics.read(directory.member(name)), found.histograms()
    skewness = found.hub_skewness
    return RetrieverSimilarity(
        retriever=name,
        seed=trained.seed,
        commit=trained.commit,
        weights=weights_checksum(directory.member(name)),
        auc=found.auc,
        auc_of_query=found.auc_of_query,
        matched_mean=float(found.matched.mean()),
        matched_deviation=float(found.matched.std()),
        mismatched_mean=found.mismatched_mean,
        mismatched_deviation=found.mismatched_deviation,
        nearest=found.nearest,
        hub_skewness=skewness if np.isfinite(skewness) else None,
        anti_hubs=found.anti_hubs,
        largest_hub=float(found.occurrences.max() / len(texts)),
        text_cosine=cosines.get("text_cosine"),
        audio_cosine=cosines.get("audio_cosine"),
        warnings=collapse_warnings(cosines),
        histogram=Histogram(edges=edges.tolist(), matched=matched.tolist(), mismatched=mismatched.tolist()),
        occurrences=np.bincount(found.occurrences).tolist(),
    )


def _audio_embeddings(directory: RunDirectory, name: str, retriever: Retriever, features: Features) -> np.ndarray:
    """Return the embeddings [N, D] of the clips: those that the run keeps, or else made now."""
    split = directory.features(directory.experiment.target_corpus, SPLIT)
    weights = weights_checksum(directory.member(name))
    if are_there([split], name, weights):
        return read_embeddings([split], name, weights, features.clip_ids)[:]
    return retriever.audio_embeddings(features.hearing(retriever.waveform_rate).audio)


def _statistics(text: np.ndarray, audio: np.ndarray, target: np.ndarray) -> PairStatistics:
    """Compare all pairs of embeddings under the metric, text [Q, D] and audio [N, D], in blocks of texts."""
    matched = -compare_pairs(distance, text, np.arange(len(text)), audio, target)
    farthest = float(np.linalg.norm(text, axis=1).max() + np.linalg.norm(audio, axis=1).max())
    found = PairStatistics(matched, target, len(audio), -farthest)
    rows = max(1, BLOCK_CELLS // len(audio))
    for start in range(0, len(text), rows):
        found.add(start, negative_distances(text[start : start + rows], audio))
    return found


# --- the chart -----------------------------------------------------------------------------------------------------


@chart
def similarity_chart(found: Similarities) -> Figure:
    """Draw the similarities of both kinds of pairs, a panel a retriever, and below how often clips are found."""
    number = len(found.retrievers)
    fig, panels = figure(5.6, 1.7 * number + 2.2, number + 1, sharex=False)
    for axes, one in zip(panels, found.retrievers, strict=False):
        _draw_pairs(axes, one)
    _draw_hubs(panels[-1], found.retrievers, found.texts)
    handles, names = panels[0].get_legend_handles_labels()
    fig.legend(handles, names, loc="outside upper left", ncols=2)
    return fig


def _draw_pairs(axes: Axes, one: RetrieverSimilarity) -> None:
    for counts, what, colour in (
        (one.histogram.mismatched, "mismatched pairs", "second"),
        (one.histogram.matched, "matched pairs", "accent"),
    ):
        share = 100 * np.array(counts) / sum(counts)
        axes.stairs(share, one.histogram.edges, fill=True, color=THEME[colour], alpha=0.35)
        axes.stairs(share, one.histogram.edges, color=THEME[colour], linewidth=1.2, label=what)
    axes.set(xlabel=f"similarity by {one.retriever}; AUC {one.auc:.3f}", ylabel="% of pairs")


def _draw_hubs(axes: Axes, retrievers: Sequence[RetrieverSimilarity], texts: int) -> None:
    """Draw the share of clips that are at least so often among the nearest of a text."""
    for number, one in enumerate(retrievers):
        counts = np.array(one.occurrences)
        at_least = 100 * counts[::-1].cumsum()[::-1] / counts.sum()
        colour = THEME[("accent", "second", "ink")[number % 3]]
        line = DASHES[number % len(DASHES)]
        axes.step(np.arange(len(counts)), at_least, where="post", color=colour, linestyle=line, label=one.retriever)
    axes.set(ylabel="% of clips", ylim=(0, 103))
    axes.set_xlabel(f"at least so often among the {retrievers[0].nearest} nearest of {texts:,} texts")
    axes.legend(loc="upper right")
