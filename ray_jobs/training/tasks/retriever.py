"""Train a retriever: log-mels and captions in one space."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import ray.train.torch
import torch
from ray.train.collective import broadcast_from_rank_zero
from torch import Tensor, nn

from models.distributed import sum_over_workers
from models.encoders.audio_windows import AudioWindows
from models.encoders.front_ends import LogMelBatches, front_end_of
from models.files import write_frame
from models.metrics.retrieval import flatten_captions, retrieval_values
from models.retriever.collapse import collapse_warnings, mean_cosines
from models.retriever.distillation import SoftTargets, TeacherEmbeddings
from models.retriever.mixup import mix_pairs, mix_waveforms
from models.retriever.model import Retriever, merge_saved_adapters
from models.retriever.wrong_captions import wrong_captions
from models.settings import RetrieverConfig, RetrieverSettings
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.member_config import Member, RetrieverMember
from ray_jobs.features.dataset import Features, read_features
from ray_jobs.features.embeddings import AUDIO, CAPTIONS, read_embeddings, weights_checksum, write_embeddings
from ray_jobs.results.member import DOUBTFUL_PAIRS, MemberMetrics, checked_weights
from ray_jobs.run import storage
from ray_jobs.training.batching import bucketed_batches, padding_share
from ray_jobs.training.doubtful_pairs import doubtful_pairs, pair_similarities
from ray_jobs.training.retriever_teacher import RetrieverTeacher
from ray_jobs.training.tasks.base import Trained, Validation
from ray_jobs.training.tasks.member import LONGEST_CAPTION, MemberTask, PlannedBatch, draw_rows


class RetrieverBatch(NamedTuple):
    """One worker's share of a batch."""

    log_mel: Tensor  # [B, frames, mels]
    lengths: Tensor  # [B] valid frames
    captions: list[str]  # B
    clips: Tensor  # [B], their numbers
    said: list[tuple[Tensor, Tensor]]  # each teacher's embeddings of clips and captions, [B, D] both
    wrong: list[list[str]] | None  # captions that are wrong for each clip


WRONG_CAPTIONS = 1  # tells their random numbers from those of mixing


class RetrieverTask(MemberTask):
    """Reads log-mels and one caption per clip, drawn anew in each epoch; a clip drawn twice is not its own negative."""

    monitor, sign = "map@10", 1
    saves_memory = ("gradient_cache",)

    @property
    def _member(self) -> RetrieverMember:
        assert isinstance(self.job.member, RetrieverMember)
        return self.job.member

    @property
    def _settings(self) -> RetrieverSettings:
        return self._member.convert(RetrieverSettings)

    def new_model(self) -> Retriever:
        config = self._member.convert(RetrieverConfig, log_mel=self.job.log_mel)
        retriever = Retriever.create(config, self.all_captions)
        if not config.audio_encoder.checkpoint:
            retriever.audio_encoder.standardise(self.train.audio)
        return retriever

    @cached_property
    def train(self) -> Features:
        return super().train.hearing(self._member.audio_encoder.waveform_rate)

    @cached_property
    def validation(self) -> Features:
        return super().validation.hearing(self._member.audio_encoder.waveform_rate)

    @cached_property
    def _front_end(self) -> LogMelBatches | AudioWindows:
        return front_end_of(self._member.audio_encoder)

    @classmethod
    def layout(cls, experiment: Experiment, member: Member) -> Retriever:
        return Retriever.layout(member.convert(RetrieverConfig, log_mel=experiment.features.log_mel))

    @classmethod
    def example_step(cls, model: Any, experiment: Experiment, member: Any) -> Tensor:
        pairs = min(cls.clips_at_once(member), member.gradient_cache or 10**9)
        wrong = member.wrong_captions.number if member.wrong_captions else 0
        # beside both encoders, the loss takes next to nothing
        text = model.embed_text([LONGEST_CAPTION] * (pairs * (1 + wrong)))[:pairs]
        joined = 2 if member.mixup_alpha and member.mixup_joins != "together" else 1  # clips in a row
        if member.audio_encoder.transformer:
            longest_s = min(experiment.features.max_duration_s, member.audio_encoder.max_seconds or math.inf)
            metric: Tensor = model.metric(model.embed_longest(pairs, joined * longest_s)) + model.metric(text)
            return metric
        front_end = experiment.features.log_mel
        longest = int(experiment.features.max_duration_s * front_end.sample_rate / front_end.hop_length)
        frames = joined * min(longest, member.audio_encoder.max_frames or longest)
        audio = model.embed_audio(torch.zeros(pairs, frames, front_end.n_mels), torch.full((pairs,), frames))
        embeddings: Tensor = model.metric(audio) + model.metric(text)
        return embeddings

    def load(self, directory: Path) -> Retriever:
        return Retriever.load(directory)

    def start_from(self, directory: Path) -> Retriever:
        return Retriever.load(directory, self._settings)

    @cached_property
    def teachers(self) -> list[RetrieverTeacher]:
        """Return the teachers by what they said of the training clips."""
        return [
            RetrieverTeacher.open(self.job.edges[name], name, self.job.train, self.train) for name in self.job.teachers
        ]

    def batches(self, epoch: int, rank: int, world: int) -> Iterator[PlannedBatch]:
        _ = self.teachers  # opened once, not in every reader's thread
        rng, train, encoder = self.rng(epoch), self.train, self._member.audio_encoder
        clips, frame_s = self.epoch_clips(rng), self.job.log_mel.hop_length / self.job.log_mel.sample_rate
        longest_s = encoder.max_seconds or (encoder.max_frames * frame_s if encoder.max_frames else math.inf)
        lengths = np.minimum(np.asarray(train.durations_s)[clips], longest_s)
        for rows in bucketed_batches(lengths, self.batch_size, rng, rank, world):
            yield PlannedBatch(epoch, rows, clips[rows])

    def read(self, batch: PlannedBatch) -> RetrieverBatch:
        audio, captions, drawn = [], [], []
        for clip, rng in self.examples_of(batch):
            (row,) = draw_rows(self.train.captions[clip], 1, rng)
            drawn.append(row)
            captions.append(self.train.captions[clip][row])
            audio.append(self._front_end.crop(self.train.audio[clip], rng))
        padded, lengths, captions = self._mixed(audio, captions, self.rng(batch.epoch, *batch.rows.tolist()))
        said = [teacher.of(batch.clips, np.array(drawn)) for teacher in self.teachers]
        wrong = self._wrong_captions(batch, captions)
        return RetrieverBatch(padded, lengths, captions, torch.from_numpy(batch.clips), said, wrong)

    def _mixed(
        self, audio: list[np.ndarray], captions: list[str], rng: np.random.Generator
    ) -> tuple[Tensor, Tensor, list[str]]:
        """Return a batch of clips, their lengths and captions, after some pairs of clips were mixed."""
        member, pin = self._member, torch.cuda.is_available()
        if member.audio_encoder.transformer:
            audio, captions = mix_waveforms(audio, captions, member.mixup_alpha, rng, member.mixup_joins)
            return *self._front_end.collate(audio, pin_memory=pin), captions
        padded = self._front_end.collate(audio, pin_memory=pin)
        return mix_pairs(*padded, captions, member.mixup_alpha, rng, member.mixup_joins)

    def _wrong_captions(self, batch: PlannedBatch, captions: list[str]) -> list[list[str]] | None:
        """Return wrong captions of each clip of a batch, where they are asked for."""
        if not (settings := self._member.wrong_captions):
            return None
        known = [self.train.captions[clip] for clip in batch.clips.tolist()]
        rng = self.rng(batch.epoch, *batch.rows.tolist(), WRONG_CAPTIONS)
        return wrong_captions(captions, known, settings.kinds, settings.number, rng)

    def tokens(self, batch: RetrieverBatch) -> int:
        return int(batch.lengths.sum())

    def loss(self, model: nn.Module, batch: RetrieverBatch, device: torch.device) -> dict[str, Tensor]:
        *pairs, said, wrong = batch
        losses = model(
            *pairs,
            chunk_size=self._member.gradient_cache,
            soft_targets=self._soft_targets(said, device),
            wrong=wrong,
        )
        losses = losses if isinstance(losses, dict) else {"loss": losses}
        return {**losses, "padding": padding_share(batch.lengths)}

    def _soft_targets(self, said: list[tuple[Tensor, Tensor]], device: torch.device) -> SoftTargets | None:
        """Return what the teachers say of a batch, given each one's embeddings of clips and captions."""
        if not (settings := self._member.distillation):
            return None
        teachers = [
            TeacherEmbeddings(audio, text, teacher.metric.to(device), teacher.scale)
            for (audio, text), teacher in zip(said, self.teachers, strict=True)
        ]
        return SoftTargets(teachers, settings.temperature, settings.weight)

    def validate(self, model: Retriever) -> Validation:
        """Compute text-to-audio retrieval among all validation clips, and how alike captions and clips are."""
        queries, target = flatten_captions(self.validation.captions)
        texts, audio = model.text_embeddings(queries), model.audio_embeddings(self.validation.audio)
        values = retrieval_values(model.similarity(texts, audio), target).corpus
        return Validation(values | mean_cosines(text_cosine=texts, audio_cosine=audio))

    def publish(self, trained: Trained, commit: str) -> None:
        storage.remove(self.job.output / DOUBTFUL_PAIRS)  # of other weights
        if self._member.audio_encoder.finetuning == "lora":
            for epoch in trained.epochs:
                merge_saved_adapters(trained.kept / str(epoch))
        super().publish(trained, commit)

    def finish(self, rank: int, world: int, say: Callable[[str], None]) -> None:
        """Make the embeddings that captioners, searches and students read, and list the pairs that agree least."""
        weights, start = weights_checksum(self.job.output), time.monotonic()
        for kind, splits in ((AUDIO, self.job.embedded), (CAPTIONS, self.job.captioned)):
            clips = sum(
                write_embeddings(split, self.job.name, weights, lambda: self._published, slice(rank, None, world), kind)
                for split in splits
            )
            if clips:
                say(f"{self.job.name}  {kind.what} of {clips:,} clips in {time.monotonic() - start:.1f} s")
        if rank == 0:
            for warning in collapse_warnings(MemberMetrics.read(self.job.output).best):
                say(f"{self.job.name}  {warning}")
        wanted = self._member.doubtful_pairs > 0 and not storage.exists(self.job.output / DOUBTFUL_PAIRS)
        # Every worker does as the first one finds; none goes on before all have written their embeddings.
        if broadcast_from_rank_zero(wanted) if world > 1 else wanted:
            self._list_doubtful_pairs(weights, rank, world, say)

    def _list_doubtful_pairs(self, weights: str, rank: int, world: int, say: Callable[[str], None]) -> None:
        """Write the pairs of training and validation clips and captions that agree least."""
        device, start = ray.train.torch.get_device(), time.monotonic()
        found, number = [], 0
        for split in dict.fromkeys([*self.job.train, *self.job.validation]):
            clips = read_features([split], self._cache_bytes).hearing(self._published.waveform_rate)
            embedded = split in self.job.embedded
            kept = read_embeddings([split], self.job.name, weights, clips.clip_ids) if embedded else None
            own = pair_similarities(self._published, clips, kept, rank, world)
            similarity = sum_over_workers(torch.from_numpy(own).to(device)).cpu().numpy()
            found.append(doubtful_pairs(split, clips, similarity, self._member.doubtful_pairs))
            number += len(similarity)
        if rank == 0:
            path, listed = self.job.output / DOUBTFUL_PAIRS, pd.concat(found, ignore_index=True)
            write_frame(path, listed)
            storage.push(path)
            say(
                f"{self.job.name}  the {len(listed):,} of {number:,} pairs of clip and caption that agree least, in "
                f"{storage.uri(path)} ({time.monotonic() - start:.1f} s); of {listed.path[0]}: {listed.caption[0]!r}"
            )

    @cached_property
    def _published(self) -> Retriever:
        return Retriever.load(checked_weights(self.job.output)).to(ray.train.torch.get_device())
