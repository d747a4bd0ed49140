"""What training means for each kind of member: its data, its batches, its loss and its validation."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.caption_damage import build_examples
from models.captioner import Captioner
from models.collapse import caption_diversity, collapse_warning
from models.fluency import FluencyDetector
from models.generation import beam_search
from models.log_mel import crop, pad_log_mels
from models.metrics import MissingPartError, caption_values, missing_parts
from models.mixup import mix_pairs
from models.retrieval_metrics import retrieval_values
from models.retriever import Retriever
from models.settings import (
    BeamConfig,
    CaptionerConfig,
    CaptionerSettings,
    FluencyDetectorConfig,
    RetrieverConfig,
    RetrieverSettings,
)
from ray_jobs.batching import bucketed_batches, draw_by_weight, padding_share
from ray_jobs.features import Features, read_features
from ray_jobs.member_config import CaptionerMember, FluencyDetectorMember, RetrieverMember
from ray_jobs.member_job import MemberJob

LOSS = "caption_loss"
WATCHED = ("unique_share", "vocabulary", "repetition")


class Task(ABC):
    """One kind of training.

    `monitor` names the validation value that chooses the epoch, `sign` +1: more is better. `warning` is what the last
    validation found worth a line to the user.
    """

    monitor: str
    sign: int
    warning: str | None = None

    def __init__(self, job: MemberJob) -> None:
        self.job = job

    @cached_property
    def train(self) -> Features:
        return read_features(self.job.train)

    @cached_property
    def validation(self) -> Features:
        return read_features(self.job.validation)

    @property
    def all_captions(self) -> list[str]:
        """Of the training split: what tokenizers are trained on."""
        return [caption for clip in self.train.captions for caption in clip]

    @abstractmethod
    def create(self) -> Any:
        """A new model."""

    @abstractmethod
    def load(self, directory: Path) -> Any:
        """A saved model of this kind."""

    @abstractmethod
    def start_from(self, directory: Path) -> Any:
        """The weights of another member's model, to be trained under this member's settings."""

    @abstractmethod
    def batches(self, epoch: int, rank: int, world: int) -> Iterator[Any]:
        """This worker's share of every global batch of an epoch, the same for the same seed and epoch."""

    def steps_per_epoch(self) -> int:
        """Steps of the optimizer in an epoch."""
        return max(1, self.examples() // self.job.member.training.batch_size)

    @property
    def batch_size(self) -> int:
        """Of what `batches` yields, over all workers: a step's batch, or a part of it."""
        return self.job.member.training.batch_size // self.job.member.training.accumulate

    def examples(self) -> int:
        """Items of an epoch: clips, unless a task says otherwise."""
        return len(self.train)

    def epoch_clips(self, rng: np.random.Generator) -> np.ndarray:
        """Rows of `train` that an epoch goes through, in no particular order."""
        if self.job.train_weights is None:
            return np.arange(len(self.train))
        return draw_by_weight(np.asarray(self.train.origins), self.job.train_weights, rng)

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any, device: torch.device) -> dict[str, Tensor]:
        """Values to log; `loss` is the one to descend."""

    @abstractmethod
    def validate(self, model: Any) -> dict[str, float]:
        """Values on the validation split."""

    def rng(self, epoch: int) -> np.random.Generator:
        """Random numbers of one epoch: nothing of them needs to be kept for resuming."""
        return np.random.default_rng([self.job.seed, epoch])


def make_task(job: MemberJob) -> Task:
    """The task of the member's kind."""
    kinds: dict[str, type[Task]] = {
        "retriever": RetrieverTask,
        "captioner": CaptionerTask,
        "fluency-detector": FluencyTask,
    }
    return kinds[job.member.kind](job)


class RetrieverTask(Task):
    """Log-mels against one caption a clip, drawn anew each epoch; a clip that comes twice is not its own negative."""

    monitor, sign = "map@10", 1

    @property
    def _member(self) -> RetrieverMember:
        assert isinstance(self.job.member, RetrieverMember)
        return self.job.member

    @property
    def _settings(self) -> RetrieverSettings:
        return RetrieverSettings(**{field: getattr(self._member, field) for field in RetrieverSettings.model_fields})

    def create(self) -> Retriever:
        config = RetrieverConfig(**dict(self._settings), log_mel=self.job.log_mel)
        retriever = Retriever.create(config, self.all_captions)
        if not config.audio_encoder.checkpoint:
            retriever.audio_encoder.standardise(self.train.log_mels)
        return retriever

    def load(self, directory: Path) -> Retriever:
        return Retriever.load(directory)

    def start_from(self, directory: Path) -> Retriever:
        return Retriever.load(directory, self._settings)

    def batches(self, epoch: int, rank: int, world: int) -> Iterator[tuple[Tensor, Tensor, list[str], Tensor]]:
        rng, train = self.rng(epoch), self.train
        clips = self.epoch_clips(rng)
        drawn = [_draw(train.captions[clip], 1, rng)[0] for clip in clips]
        most = self._member.audio_encoder.max_frames
        longest_s = most * self.job.log_mel.hop_length / self.job.log_mel.sample_rate if most else math.inf
        lengths = [min(train.durations_s[clip], longest_s) for clip in clips]
        own = np.random.default_rng([self.job.seed, epoch, 1 + rank])  # `rng` must go on alike in all workers
        for rows in bucketed_batches(lengths, self.batch_size, rng, rank, world):
            log_mels = [crop(train.log_mels[clip], most, own) for clip in clips[rows]]
            mixed = mix_pairs(*pad_log_mels(log_mels), [drawn[row] for row in rows], self._member.mixup_alpha, own)
            yield *mixed, torch.from_numpy(clips[rows])

    def loss(self, model: nn.Module, batch: Any, device: torch.device) -> dict[str, Tensor]:
        return {"loss": model(*batch, at_once=self._member.gradient_cache), "padding": padding_share(batch[1])}

    def validate(self, model: Retriever) -> dict[str, float]:
        queries = [caption for clip in self.validation.captions for caption in clip]
        target = np.repeat(np.arange(len(self.validation)), [len(clip) for clip in self.validation.captions])
        audio = model.audio_embeddings(self.validation.log_mels)
        return retrieval_values(model.similarity(model.text_embeddings(queries), audio), target).corpus


class CaptionerTask(Task):
    """Codes and the retriever's audio_embedding against `captions_per_clip` captions, drawn anew each epoch.

    Raises:
        MissingPartError: if the monitored metric cannot be computed here.
    """

    def __init__(self, job: MemberJob) -> None:
        super().__init__(job)
        self.monitor = self._member.monitor
        self.sign = -1 if self.monitor == LOSS else 1
        if self.monitor != LOSS and (reason := missing_parts(self.monitor)):
            raise MissingPartError(f"members.{job.name}.monitor: {self.monitor}: {reason}")

    @cached_property
    def retrievers(self) -> list[Retriever]:
        return [Retriever.load(self.job.edges[name]) for name in self._member.retrievers()]

    @cached_property
    def train_embeddings(self) -> np.ndarray:
        return np.concatenate([retriever.audio_embeddings(self.train.log_mels) for retriever in self.retrievers], 1)

    @cached_property
    def validation_embeddings(self) -> np.ndarray:
        log_mels = self.validation.log_mels
        return np.concatenate([retriever.audio_embeddings(log_mels) for retriever in self.retrievers], 1)

    @property
    def _member(self) -> CaptionerMember:
        assert isinstance(self.job.member, CaptionerMember)
        return self.job.member

    @property
    def _settings(self) -> CaptionerSettings:
        return CaptionerSettings(**{field: getattr(self._member, field) for field in CaptionerSettings.model_fields})

    def create(self) -> Captioner:
        config = CaptionerConfig(
            **dict(self._settings),
            codebooks=self.train.codes[0].shape[1],
            codebook_size=self.train.codec["codebook_size"],
            audio_embedding_dim=sum(retriever.config.joint_dim for retriever in self.retrievers),
        )
        return Captioner.create(config, self.all_captions)

    def load(self, directory: Path) -> Captioner:
        return Captioner.load(directory)

    def start_from(self, directory: Path) -> Captioner:
        return Captioner.load(directory, self._settings)

    def batches(self, epoch: int, rank: int, world: int) -> Iterator[tuple[list[np.ndarray], Tensor, list[list[str]]]]:
        rng, train, each = self.rng(epoch), self.train, self._member.captions_per_clip
        clips = self.epoch_clips(rng)
        lengths = [train.durations_s[clip] for clip in clips]
        for rows in bucketed_batches(lengths, self.batch_size, rng, rank, world):
            batch = clips[rows]
            captions = [_draw(train.captions[clip], each, rng) for clip in batch]
            yield [train.codes[clip] for clip in batch], torch.from_numpy(self.train_embeddings[batch]), captions

    def loss(self, model: nn.Module, batch: Any, device: torch.device) -> dict[str, Tensor]:
        clips, embeddings, captions = batch
        captioner: Any = getattr(model, "module", model)  # DistributedDataParallel wraps it
        codes, lengths = captioner.pad_codes(clips)
        losses = model(codes, lengths, embeddings.to(device), captions)
        return {**losses, "padding": padding_share(lengths)}

    @cached_property
    def described(self) -> np.ndarray:
        """Rows of the validation clips that captions are generated for, spread over the split; ascending."""
        if self.monitor == LOSS:
            return np.zeros(0, int)
        clips = len(self.validation)
        return np.arange(clips)[:: math.ceil(clips / (self._member.validation_clips or clips))]

    @torch.inference_mode()
    def validate(self, model: Captioner) -> dict[str, float]:
        """Negative log-likelihood a token of the references, without label smoothing: `caption_loss`.

        Where a metric is monitored, also its value of generated captions, and how much these differ.
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
        return {LOSS: summed / counted, **(self._value(said) if said else {})}

    def _value(self, said: list[str]) -> dict[str, float]:
        """The monitored metric of the captions of `described` clips, and what tells a collapse."""
        scores = caption_values(said, [self.validation.captions[row] for row in self.described], [self.monitor])
        if reason := scores.absent.get(self.monitor):
            raise MissingPartError(f"members.{self.job.name}.monitor: {self.monitor}: {reason}")
        diversity = caption_diversity(said)
        self.warning = collapse_warning(diversity)
        return {self.monitor: scores.corpus[self.monitor]} | {key: diversity[key] for key in WATCHED}


def _draw(captions: list[str], number: int, rng: np.random.Generator) -> list[str]:
    """`number` of a clip's captions, each once as long as there are enough."""
    return [str(caption) for caption in rng.choice(captions, number, replace=len(captions) < number)]


class FluencyTask(Task):
    """Intact against damaged captions, damaged anew each epoch."""

    monitor, sign = "f1", 1

    @property
    def _settings(self) -> FluencyDetectorConfig:
        assert isinstance(self.job.member, FluencyDetectorMember)
        return FluencyDetectorConfig(text_encoder=self.job.member.text_encoder)

    def create(self) -> FluencyDetector:
        return FluencyDetector.create(self._settings, self.all_captions)

    def load(self, directory: Path) -> FluencyDetector:
        return FluencyDetector.load(directory)

    def start_from(self, directory: Path) -> FluencyDetector:
        return FluencyDetector.load(directory, self._settings)

    @property
    def batch_size(self) -> int:
        """Of what `batches` yields, over all workers: a step's batch, or a part of it."""
        return self.job.member.training.batch_size // self.job.member.training.accumulate

    def examples(self) -> int:
        return len(build_examples(self.all_captions, self.rng(0)))

    def batches(self, epoch: int, rank: int, world: int) -> Iterator[list[tuple[str, int]]]:
        rng = self.rng(epoch)
        examples = build_examples(self.all_captions, rng)
        lengths = [len(text) for text, _ in examples]
        for rows in bucketed_batches(lengths, self.batch_size, rng, rank, world):
            yield [examples[row] for row in rows]

    def loss(self, model: nn.Module, batch: Any, device: torch.device) -> dict[str, Tensor]:
        damaged = torch.tensor([float(label) for _, label in batch], device=device)
        return {"loss": model([text for text, _ in batch], damaged)}

    def validate(self, model: FluencyDetector) -> dict[str, float]:
        """Precision, recall and F1 of finding damage, at probability 0.5, on the damaged validation captions."""
        captions = [caption for clip in self.validation.captions for caption in clip]
        examples = build_examples(captions, np.random.default_rng(self.job.seed))
        damaged = np.array([label for _, label in examples], bool)
        found = model.fluency_error([text for text, _ in examples]) > 0.5
        precision = (damaged & found).sum() / max(1, found.sum())
        recall = (damaged & found).sum() / max(1, damaged.sum())
        f1 = 2 * precision * recall / max(1e-9, precision + recall)
        return {"precision": float(precision), "recall": float(recall), "f1": float(f1)}
