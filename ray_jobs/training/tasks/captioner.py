"""Train a captioner: from codes and audio embeddings to captions."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import ray.train.torch
import torch
from torch import Tensor, nn

from models.captioner.distillation import TokenTargets, mean_log_probabilities
from models.captioner.model import Captioner, no_embedding
from models.codec.shape import codec_shape
from models.fingerprint import fingerprint
from models.generation.agreed_captions import AgreedCaption, agreed_captions
from models.generation.candidates import beam_search
from models.metrics.captions import MissingPartError, caption_values, missing_parts
from models.metrics.diversity import caption_diversity, collapse_warning
from models.settings import BeamConfig, CaptionerConfig, CaptionerSettings
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.member_config import LOSS, CaptionerMember, Member, RetrieverMember
from ray_jobs.features.dataset import Features, read_features
from ray_jobs.features.embeddings import Embeddings, embeddings_of_each, side_by_side, weights_checksum
from ray_jobs.features.teacher_captions import read_captions, write_captions
from ray_jobs.training.batching import bucketed_batches, padding_share
from ray_jobs.training.captioner_teachers import CaptionerTeachers
from ray_jobs.training.member_job import MemberJob
from ray_jobs.training.tasks.base import Validation
from ray_jobs.training.tasks.member import LONGEST_CAPTION, MemberTask, PlannedBatch, draw_captions

WATCHED = ("unique_share", "vocabulary", "repetition")


class CaptionerBatch(NamedTuple):
    """One worker's share of a batch."""

    codes: list[np.ndarray]  # [T_i, Q] of B clips
    embeddings: Tensor  # [B, D] audio embeddings
    captions: list[list[str]]  # of each clip
    heard: list[Tensor]  # [B, D] audio embeddings that each teacher reads, where teachers run in training


class CaptionerTask(MemberTask):
    """Reads codes and retrievers' audio embeddings; `captions_per_clip` captions are drawn anew in each epoch.

    A student (`distil_from`) reads the caption of its teachers in place of some of them, and learns from their token
    distributions.

    Raises:
        MissingPartError: if the monitored metric cannot be computed here.
    """

    saves_memory = ("training.accumulate", "gradient_checkpointing: true")

    def __init__(self, job: MemberJob) -> None:
        super().__init__(job)
        self.monitor = job.monitor or self._member.monitor
        self.sign = -1 if self.monitor == LOSS else 1
        if job.is_validated and (reason := missing_parts(self.monitor)):
            raise MissingPartError(f"{job.key('monitor')}: {self.monitor}: {reason}")

    def keep_monitor(self, values: dict[str, float]) -> None:
        known = [name for name in (self._member.monitor, self._member.fallback_monitor) if name in values]
        if self.monitor not in known:
            (self.monitor,) = known
            self.sign = -1 if self.monitor == LOSS else 1

    def begin(self, rank: int, world: int, say: Callable[[str], None]) -> None:
        """Make the teachers' captions of the training clips, where they are read."""
        if not (settings := self._member.distillation) or not settings.caption_share:
            return
        start, made = time.monotonic(), 0
        for split in self.job.train:
            clips = read_features([split], self._cache_bytes)
            make = self._agreement(split, clips, settings.beam)
            made += write_captions(split, self._captions_key, clips, make, slice(rank, None, world))
        if made:
            taken = time.monotonic() - start
            say(f"{self.job.name}  captions of {', '.join(self.job.teachers)} for {made:,} clips in {taken:.1f} s")

    def _agreement(self, split: Path, clips: Features, beam: BeamConfig) -> Callable[[slice], list[AgreedCaption]]:
        """Return what captions some of a split's clips, by teachers that are loaded when it is first called."""

        @cache
        def teachers() -> CaptionerTeachers:
            return CaptionerTeachers.open(self.job, [split], clips.clip_ids).to(ray.train.torch.get_device())

        return lambda rows: agreed_captions(teachers().captioners, teachers().inputs(clips, rows), beam)

    @property
    def _captions_key(self) -> str:
        """Return the fingerprint of what the teachers' captions depend on, besides the clips."""
        assert self._member.distillation
        weights = {name: weights_checksum(self.job.edges[name]) for name in self.job.teachers}
        return fingerprint(weights, self._member.distillation.beam)

    @cached_property
    def teacher_captions(self) -> list[str]:
        """Return the teachers' caption of each training clip; empty where none is read."""
        if not (settings := self._member.distillation) or not settings.caption_share:
            return []
        return read_captions(self.job.train, self._captions_key, self.train.clip_ids)

    @cached_property
    def token_teachers(self) -> CaptionerTeachers | None:
        """Return the teachers that run in every step, if there are any."""
        if not (settings := self._member.distillation) or not settings.token_weight:
            return None
        return CaptionerTeachers.open(self.job, self.job.train, self.train.clip_ids)

    def create(self) -> Captioner:
        model: Captioner = super().create()
        if self.token_teachers:
            self.token_teachers.check_tokenizer(self.job.name, model)
        return model

    @cached_property
    def train_embeddings(self) -> list[Embeddings | np.ndarray]:
        """Return the embeddings of the training clips, of each retriever that is read."""
        return self._embeddings(self.job.train, self.train)

    @cached_property
    def validation_embeddings(self) -> np.ndarray:
        """Return what is read beside the codes of the validation clips, [clips, all retrievers' D]."""
        return side_by_side(self._embeddings(self.job.validation, self.validation), slice(None))

    def _embeddings(self, splits: list[Path], features: Features) -> list[Embeddings | np.ndarray]:
        weights = {name: weights_checksum(self.job.edges[name]) for name in self._member.retrievers()}
        return embeddings_of_each(splits, weights, features.clip_ids)

    @property
    def _member(self) -> CaptionerMember:
        assert isinstance(self.job.member, CaptionerMember)
        return self.job.member

    @property
    def _settings(self) -> CaptionerSettings:
        return self._member.convert(CaptionerSettings)

    def new_model(self) -> Captioner:
        config = self._member.convert(
            CaptionerConfig,
            codebooks=self.train.codes[0].shape[1],
            codebook_size=self.train.codec["codebook_size"],
            audio_embedding_dim=side_by_side(self.train_embeddings, slice(1)).shape[1],
        )
        return Captioner.create(config, self.all_captions)

    @classmethod
    def layout(cls, experiment: Experiment, member: Member) -> Captioner:
        codec = codec_shape(experiment.features.codec, experiment.features.codebooks)
        retrievers = [experiment.members[name] for name in member.retrievers()]
        dim = sum(one.joint_dim for one in retrievers if isinstance(one, RetrieverMember))
        config = member.convert(
            CaptionerConfig,
            codebooks=codec.codebooks,
            codebook_size=codec.codebook_size,
            audio_embedding_dim=dim or no_embedding(1).shape[1],
        )
        return Captioner.layout(config)

    @classmethod
    def example_step(cls, model: Any, experiment: Experiment, member: Any) -> Tensor:
        features, clips = experiment.features, cls.clips_at_once(member)
        longest = int(features.max_duration_s * codec_shape(features.codec, features.codebooks).frames_per_s)
        frames = min(longest, model.max_frames)
        codes = torch.zeros(clips, frames, model.config.codebooks, dtype=torch.long)
        embeddings = torch.zeros(clips, model.config.audio_embedding_dim)
        captions = [[LONGEST_CAPTION] * member.captions_per_clip] * clips
        targets = None
        if member.distillation and member.distillation.token_weight:
            labels = model.labels([caption for clip in captions for caption in clip])
            expected = torch.zeros(*labels.shape, model.bart.config.vocab_size)
            targets = TokenTargets(expected, member.distillation.temperature, member.distillation.token_weight)
        loss: Tensor = model(codes, torch.full((clips,), frames), embeddings, captions, soft_targets=targets)["loss"]
        return loss

    @classmethod
    def teacher_weights(cls, experiment: Experiment, member: Any) -> int:
        if not member.distillation or not member.distillation.token_weight:
            return 0
        teachers = [cls.layout(experiment, experiment.members[name]) for name in member.teachers()]
        return sum(parameter.numel() for teacher in teachers for parameter in teacher.parameters())

    def load(self, directory: Path) -> Captioner:
        return Captioner.load(directory)

    def start_from(self, directory: Path) -> Captioner:
        return Captioner.load(directory, self._settings)

    def batches(self, epoch: int, rank: int, world: int) -> Iterator[PlannedBatch]:
        rng, train = self.rng(epoch), self.train
        _ = self.train_embeddings, self.teacher_captions, self.token_teachers  # read once, not in every reader's thread
        clips = self.epoch_clips(rng)
        lengths = np.asarray(train.durations_s)[clips]
        for rows in bucketed_batches(lengths, self.batch_size, rng, rank, world):
            yield PlannedBatch(epoch, rows, clips[rows])

    def read(self, batch: PlannedBatch) -> CaptionerBatch:
        train = self.train
        return CaptionerBatch(
            [train.codes[clip] for clip in batch.clips],
            torch.from_numpy(side_by_side(self.train_embeddings, batch.clips)),
            [self._captions(clip, rng) for clip, rng in self.examples_of(batch)],
            self.token_teachers.heard(batch.clips) if self.token_teachers else [],
        )

    def _captions(self, clip: int, rng: np.random.Generator) -> list[str]:
        """Draw a clip's captions; a student reads its teachers' caption in place of a share of them."""
        drawn = draw_captions(self.train.captions[clip], self._member.captions_per_clip, rng)
        if not (settings := self._member.distillation) or not settings.caption_share:
            return drawn
        replaced = rng.random(len(drawn)) < settings.caption_share
        return [self.teacher_captions[clip] if one else own for one, own in zip(replaced, drawn, strict=True)]

    def tokens(self, batch: CaptionerBatch) -> int:
        return sum(len(codes) for codes in batch.codes)

    def loss(self, model: nn.Module, batch: CaptionerBatch, device: torch.device) -> dict[str, Tensor]:
        captioner: Any = getattr(model, "module", model)  # DistributedDataParallel wraps it
        codes, lengths = captioner.pad_codes(batch.codes)
        embeddings = batch.embeddings.to(device, non_blocking=True)
        losses = model(codes, lengths, embeddings, batch.captions, soft_targets=self._soft_targets(captioner, batch))
        return {**losses, "padding": padding_share(lengths)}

    def _soft_targets(self, student: Captioner, batch: CaptionerBatch) -> TokenTargets | None:
        """Return what the teachers expect of the tokens of a batch's captions."""
        if not self.token_teachers:
            return None
        settings = self._member.distillation
        assert settings
        labels = student.labels([caption for clip in batch.captions for caption in clip])
        teachers = self.token_teachers.to(labels.device).captioners.values()
        expected = mean_log_probabilities([*teachers], batch.codes, batch.heard, labels, settings.temperature)
        return TokenTargets(expected, settings.temperature, settings.token_weight)

    @cached_property
    def described(self) -> np.ndarray:
        """Return the rows of the validation clips that are captioned: ascending, spread over the split."""
        clips = len(self.validation)
        wanted = self._member.watched_clips if self.monitor == LOSS else self._member.validation_clips or clips
        return np.arange(clips)[:: math.ceil(clips / wanted)] if wanted else np.zeros(0, int)

    @torch.inference_mode()
    def validate(self, model: Captioner) -> Validation:
        """Compute `caption_loss`: the negative log-likelihood of references per token, without label smoothing.

        Where clips are captioned (`described`), also how much the captions differ, and the monitored metric.
        """
        summed, counted, clips = 0.0, 0, self.validation
        beam, said = BeamConfig(beams=self._member.validation_beams), list[str]()
        for at in range(0, len(clips), 32):
            rows = range(at, min(at + 32, len(clips)))
            codes, lengths = model.pad_codes([clips.codes[row] for row in rows])
            embeddings = torch.from_numpy(self.validation_embeddings[at : at + 32]).to(codes.device)
            states, mask = model.encode(codes, lengths, embeddings)
            each = torch.tensor([len(clips.captions[row]) for row in rows], device=codes.device)
            captions = [caption for row in rows for caption in clips.captions[row]]
            scores = model.log_likelihood(states.repeat_interleave(each, 0), mask.repeat_interleave(each, 0), captions)
            summed -= float(scores.sum())
            counted += len(captions)
            wanted = torch.from_numpy(self.described[np.isin(self.described, rows)] - at)
            if len(wanted):
                said += [best.text for best in beam_search(model, states[wanted], mask[wanted], beam)]
        loss = {LOSS: summed / counted}
        if not said:
            return Validation(loss)
        diversity = caption_diversity(said)
        warning = collapse_warning(diversity)
        monitored = {} if self.monitor == LOSS else {self.monitor: self._monitored(said)}
        values = loss | monitored | {key: diversity[key] for key in WATCHED}
        return Validation(values, [warning] if warning else [])

    def _monitored(self, said: list[str]) -> float:
        """Return the monitored metric of the captions of `described` clips."""
        scores = caption_values(said, [self.validation.captions[row] for row in self.described], [self.monitor])
        if reason := scores.absent.get(self.monitor):
            raise MissingPartError(f"{self.job.key('monitor')}: {self.monitor}: {reason}")
        return scores.corpus[self.monitor]
