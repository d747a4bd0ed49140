"""Candidates of the validation clips, drawn once for each sampling setting: search/candidates/<setting>/*.parquet.

A file holds some clips: every distinct caption that the captioners propose for each, with all its scores and its value
by each metric. Candidates that are there are never drawn again, neither by a sampling trial that goes on, nor by a
search that was interrupted, nor by the reranking search, which needs all clips of the chosen setting.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import ray

from models.ensemble.candidate_table import VALUE, CandidateError, CandidateTable, ValuedTable
from models.ensemble.scores.base import MemberNames
from models.ensemble.scores.registry import score_columns
from models.files import write_frame
from models.metrics.captions import CaptionInputError, candidate_values
from models.settings import SamplingConfig
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.search_config import SearchConfig
from ray_jobs.features.files import find_shards, read_table
from ray_jobs.run import storage
from ray_jobs.run.directory import RunDirectory
from ray_jobs.run.session import gpu_share
from ray_jobs.tuning.trained_members import TrainedMembers

SPLIT = "validation"
CLIPS_PER_FILE = 128


def validation_directory(experiment: Experiment) -> RunDirectory:
    """Return the run directory as a search sees it: the test split is refused."""
    return RunDirectory(experiment, splits=(SPLIT,))


def member_names(experiment: Experiment) -> MemberNames:
    """Return the members that the scores of an experiment's candidates are named after."""
    return MemberNames(
        retrievers=experiment.of_kind("retriever"),
        captioners=experiment.of_kind("captioner"),
        caption_sources=experiment.caption_sources(),
    )


class LoadedMembers:
    """The trained members that a process keeps loaded over the validation split: those of one experiment at a time."""

    def __init__(self) -> None:
        self._members: TrainedMembers | None = None

    def of(self, experiment: Experiment) -> TrainedMembers:
        """Return the experiment's members: those of the last call where it was for an equal experiment."""
        if self._members is None or self._members.experiment != experiment:
            self._members = None  # so that two experiments' members are never loaded together
            directory = validation_directory(experiment)
            self._members = TrainedMembers(experiment, SPLIT, directory)
        return self._members


LOADED = LoadedMembers()  # in this process: Ray runs many trials and tasks in one


def validation_clip_ids(directory: RunDirectory, experiment: Experiment) -> list[str]:
    """Return the validation clips in the order in which all searches go through them."""
    shards = find_shards(directory.features(experiment.target_corpus, SPLIT))
    return [clip_id for shard in shards for clip_id in read_table(shard, ["clip_id"]).columns["clip_id"]]


def resources(search: SearchConfig) -> dict[str, float]:
    """Return the CPUs and the share of a GPU of a process that draws candidates."""
    return {"cpu": search.cpus_per_trial, "gpu": gpu_share(search.gpus_per_trial)}


def rung_sizes(clips: int, search: SearchConfig) -> list[int]:
    """Return the growing numbers of clips on which sampling trials are compared, up to `search.clips` (or all)."""
    most = min(search.clips or clips, clips)
    sizes = {max(min(3, most), round(most / search.reduction**rung)) for rung in range(search.rungs)}
    return sorted(sizes)


def shard_slices(clips: int, search: SearchConfig) -> list[slice]:
    """Return the clips of each file; no file extends over the end of a rung."""
    ends = sorted({*rung_sizes(clips, search), clips})
    return [
        slice(at, min(at + CLIPS_PER_FILE, end))
        for start, end in zip([0, *ends[:-1]], ends, strict=True)
        for at in range(start, end, CLIPS_PER_FILE)
    ]


class CandidateStore:
    """The candidates of one sampling setting."""

    def __init__(self, experiment: Experiment, sampling: SamplingConfig) -> None:
        self.experiment, self.sampling = experiment, sampling
        directory = validation_directory(experiment)
        self.folder = directory.search("candidates") / directory.candidates_inputs(sampling)

    def path(self, clips: slice) -> Path:
        """Return the file of some clips."""
        return self.folder / f"clips-{clips.start:05d}-{clips.stop:05d}.parquet"

    def is_there(self, clips: slice, metrics: Sequence[str]) -> bool:
        """Return whether the file of some clips is there, with all scores and their values by these metrics."""
        return {*self._scores(), *(VALUE + metric for metric in metrics)} <= self._columns(clips)

    def build(self, clips: slice, metrics: Sequence[str]) -> float:
        """Make what is missing of a file; return the seconds that drawing and scoring took.

        A file from before a score was registered, or a damaged one, is made anew: its candidates are drawn from the
        same seed.
        """
        if self.is_there(clips, metrics):
            return 0.0
        members = LOADED.of(self.experiment)
        clip_ids = members.features.clip_ids
        seconds = 0.0
        if self._scores() <= self._columns(clips):
            frame = pd.read_parquet(storage.pull(self.path(clips)))
        else:
            _ = (
                members.captioners,
                members.retrievers,
                members.detector,
                members.audio_embeddings,
                members.references,
            )  # loading is not drawing
            start = time.perf_counter()
            frame = members.candidates(self.sampling, clips).to_frame(clip_ids[clips])
            seconds = time.perf_counter() - start
        wanted = [metric for metric in metrics if VALUE + metric not in frame]
        frame = add_values(frame, clip_ids, members.features.captions, wanted)
        write_frame(self.path(clips), frame)
        storage.push(self.path(clips))
        return seconds

    def _scores(self) -> set[str]:
        return set(score_columns(member_names(self.experiment)))

    def _columns(self, clips: slice) -> set[str]:
        """Return the columns of the file of some clips; none where it is not there or damaged."""
        path = self.path(clips)
        if not storage.exists(path):
            return set()
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return set(pq.read_schema(storage.source(path)).names)
        except pa.ArrowInvalid:
            return set()

    def read(self, clip_ids: Sequence[str], search: SearchConfig, clips: int) -> ValuedTable:
        """Return the table of the first `clips` clips, and the values [clips, K] by metric.

        Args:
            clip_ids: those of all validation clips.

        Raises:
            CandidateError, NoCandidateError, NonFiniteScoreError: files do not fit the split or each other.
        """
        needed = [part for part in shard_slices(len(clip_ids), search) if part.stop <= clips]
        frames = [pd.read_parquet(storage.pull(self.path(part))) for part in needed]
        shared = [column for column in frames[0] if all(column in frame for frame in frames)]
        frame = pd.concat([frame[shared] for frame in frames], ignore_index=True)
        return CandidateTable.from_frame(frame, clip_ids[:clips], member_names(self.experiment))


def add_values(
    frame: pd.DataFrame, clip_ids: Sequence[str], references: list[list[str]], metrics: Sequence[str]
) -> pd.DataFrame:
    """Return the frame with a column `value/<metric>` for each metric.

    CIDEr-D weighs n-grams by the references of all clips, including those without candidates in the frame, so that a
    value does not depend on which clips the frame holds.

    Raises:
        CandidateError: a clip has no references.
    """
    place = {clip_id: place for place, clip_id in enumerate(clip_ids)}
    frame = frame.iloc[np.argsort(frame["clip_id"].map(place), kind="stable")]
    captions = frame.groupby("clip_id", sort=False)["caption"].agg(list).to_dict()
    candidates = [captions.get(clip_id, []) for clip_id in clip_ids]
    for metric in metrics:
        try:
            values = candidate_values(candidates, references, metric)
        except CaptionInputError as error:
            if error.index is None:
                raise
            raise CandidateError(f"clip {clip_ids[error.index]!r}: {error}; candidates cannot be valued") from error
        frame = frame.assign(**{VALUE + metric: np.concatenate(values)})
    return frame


@ray.remote(max_retries=2)
def build_remotely(experiment: Experiment, sampling: SamplingConfig, clips: slice, metrics: Sequence[str]) -> float:
    """Run `CandidateStore.build` as a task: on any node, on its GPU if there is one."""
    return CandidateStore(experiment, sampling).build(clips, metrics)


def build_all(experiment: Experiment, sampling: SamplingConfig, clips: int, metrics: Sequence[str]) -> None:
    """Make what is missing of a setting's candidates of the first `clips` clips.

    The tasks run at the same time, as many as the cluster holds.
    """
    store = CandidateStore(experiment, sampling)
    missing = [part for part in shard_slices(clips, experiment.search) if not store.is_there(part, metrics)]
    if not missing:
        return
    share = resources(experiment.search)
    task = build_remotely.options(num_cpus=share["cpu"], num_gpus=share["gpu"])
    ray.get([task.remote(experiment, sampling, part, metrics) for part in missing])
