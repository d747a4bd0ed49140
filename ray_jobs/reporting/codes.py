"""Look at how the codes of a run's clips use their codebooks, shard by shard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.codec.statistics import CodeCounts, CodesError, Labels
from models.console import progress_bar
from models.errors import CorpusError, InputError
from ray_jobs.experiment.config import Experiment
from ray_jobs.features.files import FeaturesError, ShardCodes, find_shards, read_codes
from ray_jobs.reporting.charts import THEME, chart, figure
from ray_jobs.results.codes import CodebookUse, CodecUse
from ray_jobs.run import storage
from ray_jobs.run.directory import RunDirectory, require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LABELS = 128  # different ones; their tables of counts take 0.1 GB of 9 codebooks of 1,024 entries
DASHES = ("solid", "dashed", "dotted", "dashdot")


def codec_use(experiment: Experiment, corpus: str | None = None, splits: Sequence[str] = ()) -> CodecUse:
    """Count the codes of a corpus of a run. Memory does not grow with the number of its clips but for their labels.

    Args:
        corpus: its name in the experiment; the target corpus when left out.
        splits: all of the corpus when left out.

    Raises:
        NotReadyError: if `prepare` has not run.
        FeaturesError: if there are no clips, or a shard is damaged or of another codec.
        InputError: if the experiment has no such corpus or split.
    """
    name, chosen = _chosen(experiment, corpus, splits)
    directory = RunDirectory(experiment)
    require(directory.features(name), directory.features_inputs(), "prepare", experiment.name)
    notes: list[str] = []
    labels = _labels(experiment, name, chosen, notes)
    counts, codec, labelled = None, {}, 0
    for path, shard in _shards(directory, name, chosen):
        if counts is None:
            codec = shard.codec
            counts = CodeCounts(codec["codebooks"], codec["codebook_size"], len(labels.names) if labels else 0)
        try:
            counts.add(shard.codes, shard.lengths, labels.weights(shard.clip_ids) if labels else None)
        except CodesError as error:
            raise FeaturesError(f"{storage.uri(path)}: {error}; `enclap prepare` makes it again") from error
        labelled += labels.has(shard.clip_ids) if labels else 0
    if counts is None or not counts.frames:
        where = ", ".join(storage.uri(directory.features(name, split)) for split in chosen)
        raise FeaturesError(f"no clips in {where}; expected feature shards made by `enclap prepare`")
    if counts.frames < counts.entries**2:
        notes.append(
            f"{counts.frames:,} frames are fewer than the {counts.entries**2:,} pairs of entries of two codebooks: "
            "what neighbours share is estimated too high"
        )
    entropies, rate = counts.entropies(), codec["sample_rate"] / codec["hop_length"]
    return CodecUse(
        name=experiment.name,
        place=storage.uri(directory.root),
        corpus=name,
        corpus_kind=experiment.corpora[name].kind,
        splits=list(chosen),
        clips=counts.clips,
        frames=counts.frames,
        labelled_clips=labelled,
        labels=counts.labels,
        codec=codec,
        entries=counts.entries,
        nominal_bps=float(counts.codebooks * np.log2(counts.entries) * rate),
        entropy_bps=float(entropies.sum() * rate),
        codebooks=_codebooks(counts, entropies, bool(labelled)),
        notes=notes,
    )


def _chosen(experiment: Experiment, corpus: str | None, splits: Sequence[str]) -> tuple[str, list[str]]:
    name = corpus or experiment.target_corpus
    if name not in experiment.corpora:
        raise InputError(f"--corpus {name!r}: {experiment.name} has {', '.join(experiment.corpora)}")
    known = list(map(str, experiment.corpora[name].splits))
    for split in splits:
        if split not in known:
            raise InputError(f"--split {split!r}: {name} of {experiment.name} has {', '.join(known)}")
    return name, list(dict.fromkeys(splits)) or known


def _labels(experiment: Experiment, corpus: str, splits: Sequence[str], notes: list[str]) -> Labels | None:
    """Return the labels of the clips; None, with a note where that is no matter of course, if there are none."""
    found: dict[str, tuple[str, ...]] = {}
    try:
        for split in splits:
            found |= experiment.corpora[corpus].labels(split)
    except CorpusError as error:
        notes.append(f"without labels: {error}")
        return None
    number = len({label for own in found.values() for label in own})
    if number > MOST_LABELS:
        notes.append(f"without labels: {corpus} has {number:,} different ones, at most {MOST_LABELS} are looked at")
        return None
    return Labels(found) if found else None


def _shards(directory: RunDirectory, corpus: str, splits: Sequence[str]) -> Iterator[tuple[Path, ShardCodes]]:
    """Yield the codes of shard after shard, with their paths, which have to be of one codec, with a progress bar."""
    paths = [path for split in splits for path in find_shards(directory.features(corpus, split))]
    first: ShardCodes | None = None
    with progress_bar(len(paths), "shards", "codes") as bar:
        for path in paths:
            shard = read_codes(path)
            first = first or shard
            if shard.codec != first.codec:
                raise FeaturesError(
                    f"{storage.uri(path)}: codes of another codec than in {storage.uri(paths[0])}; `enclap prepare` "
                    "makes both with one codec"
                )
            yield path, shard
            bar.update()


def _codebooks(counts: CodeCounts, entropies: np.ndarray, labelled: bool) -> list[CodebookUse]:
    used, following = counts.used(), [*counts.neighbour_information().tolist(), None]
    told, by_chance = counts.label_information() if labelled else (None, None)
    return [
        CodebookUse(
            codebook=book + 1,
            used=int(used[book]),
            dead=counts.entries - int(used[book]),
            entropy=float(entropies[book]),
            perplexity=float(2 ** entropies[book]),
            next_information=following[book],
            label_information=None if told is None else float(told[book]),
            label_information_by_chance=None if by_chance is None else float(by_chance[book]),
        )
        for book in range(counts.codebooks)
    ]


@chart
def codes_chart(found: Sequence[CodecUse]) -> Figure:
    """Draw codebook by codebook what the tables say, several codecs in the same panels."""
    labelled = any(one.labelled_clips for one in found)
    fig, panels = figure(5.6, 2.0 * (3 + labelled), 3 + labelled)
    for number, one in enumerate(found):
        books = [book.codebook for book in one.codebooks]
        style: dict[str, Any] = {
            "color": THEME["accent" if number % 2 == 0 else "second"],
            "linestyle": DASHES[number % len(DASHES)],
            "marker": "o",
            "markersize": 4,
        }
        codec = one.codec.get("codec", "codec")
        panels[0].plot(
            books, [100 * b.used / one.entries for b in one.codebooks], label=f"{one.name}: {codec}", **style
        )
        panels[1].plot(books, [100 * b.perplexity / one.entries for b in one.codebooks], **style)
        panels[2].plot(books[:-1], [b.next_information for b in one.codebooks[:-1]], **style)
        if one.labelled_clips:
            _draw_labels(panels[3], one, style)
    for axes, what in zip(
        panels,
        (
            "entries used, %",
            "perplexity, % of entries",
            "information shared\nwith the next, bits",
            "information on labels,\nbits (thin: shuffled)",
        ),
        strict=False,
    ):
        axes.set_ylabel(what)
        axes.set_ylim(0, 1.1 * axes.dataLim.y1 or 1.0)
    panels[-1].set_xlabel("codebook")
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    fig.legend(loc="outside upper left", ncols=1)
    return fig


def _draw_labels(axes: Axes, one: CodecUse, style: dict[str, Any]) -> None:
    books = [book.codebook for book in one.codebooks]
    axes.plot(books, [book.label_information or 0.0 for book in one.codebooks], **style)
    chance = [book.label_information_by_chance or 0.0 for book in one.codebooks]
    axes.plot(books, chance, color=style["color"], linestyle=style["linestyle"], linewidth=0.7)
