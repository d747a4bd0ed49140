"""Measure the seconds a clip of every system, each with nothing but what it needs, on the first clips of a split."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from models.ensemble.reranking import Reranking
from models.generation.candidates import BATCH
from models.generation.pooling import BEAM
from models.settings import SamplingConfig
from ray_jobs.results.seconds import SystemSeconds
from ray_jobs.tuning.trained_members import TrainedMembers

FEW = slice(BATCH)


def system_seconds(
    members: TrainedMembers, sampling: SamplingConfig, choices: Mapping[str, Reranking]
) -> SystemSeconds:
    """Measure the systems of captioning and the retrievers, one after another, on this machine.

    Args:
        choices: by system, how its captions are chosen; the beams of captioners, which need none, are added.
    """
    clips = len(members.features.clip_ids[FEW])

    def seconds(work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        return (time.perf_counter() - start) / clips

    beams = [name + BEAM for name in members.experiment.caption_sources()]
    audio = {name: members.features.hearing(one.waveform_rate).audio[FEW] for name, one in members.retrievers.items()}
    _ = members.audio_embeddings  # read or made before the clock runs
    return SystemSeconds(
        clips=clips,
        embedding={
            name: seconds(lambda name=name, one=one: one.audio_embeddings(audio[name]))  # type: ignore[misc]
            for name, one in members.retrievers.items()
        },
        captioning={
            **{beam: seconds(lambda beam=beam: members.proposals(sampling, FEW, [beam])) for beam in beams},  # type: ignore[misc]
            **{
                system: seconds(lambda choice=choice: members.candidates(sampling, FEW, choice))  # type: ignore[misc]
                for system, choice in choices.items()
            },
        },
    )
