"""Read what captioners, as teachers, say of a student's training clips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.captioner.model import Captioner
from models.errors import InputError
from models.generation.proposals import ClipInputs
from models.generation.token_ensemble import check_tokenizer
from ray_jobs.experiment.member_config import AnyMember
from ray_jobs.features.dataset import Features
from ray_jobs.features.embeddings import Embeddings, embeddings_of_each, side_by_side, weights_checksum
from ray_jobs.results.member import checked_weights
from ray_jobs.training.member_job import MemberJob


class TeacherError(InputError, ValueError):
    """A member cannot be a student's teacher; the message names both, what was found and what was expected."""


@dataclass(frozen=True)
class CaptionerTeachers:
    """Captioners by name, each with the audio embeddings of a student's training clips that it reads."""

    captioners: dict[str, Captioner]
    audio: dict[str, list[Embeddings | np.ndarray]]  # by captioner, of each retriever that it reads

    @classmethod
    def open(cls, job: MemberJob, splits: list[Path], clip_ids: list[str]) -> CaptionerTeachers:
        """Load the teachers of a student, and open the embeddings of some splits.

        Args:
            clip_ids: of the splits' features.

        Raises:
            FeaturesError: if embeddings are missing, or of other weights or clips.
            RecordError: if the weights of a teacher are not the recorded ones.
        """

        def opened(member: AnyMember) -> list[Embeddings | np.ndarray]:
            weights = {name: weights_checksum(job.edges[name]) for name in member.retrievers()}
            return embeddings_of_each(splits, weights, clip_ids)

        return cls(
            captioners={
                name: Captioner.load(checked_weights(job.edges[name])).requires_grad_(False) for name in job.teachers
            },
            audio={name: opened(member) for name, member in job.teachers.items()},
        )

    def to(self, device: torch.device) -> CaptionerTeachers:
        """Move the captioners to a device, and return the same teachers."""
        for captioner in self.captioners.values():
            captioner.to(device)
        return self

    def inputs(self, clips: Features, rows: slice) -> ClipInputs:
        """Return what the teachers read of some clips."""
        return ClipInputs(clips.codes[rows], {name: side_by_side(one, rows) for name, one in self.audio.items()})

    def heard(self, clips: np.ndarray) -> list[Tensor]:
        """Return the audio embeddings [B, D] of clips that each teacher reads."""
        return [torch.from_numpy(side_by_side(one, clips)) for one in self.audio.values()]

    def check_tokenizer(self, student: str, model: Captioner) -> None:
        """Check that the teachers write in the student's tokens.

        Raises:
            TeacherError: naming the first teacher that does not.
        """
        for name, captioner in self.captioners.items():
            try:
                check_tokenizer(student, model, name, captioner)
            except ValueError as error:
                raise TeacherError(
                    f"members.{student}.distillation.token_weight: {error}; give both the same language_model or, from "
                    "scratch, tokenizer, vocab_size and corpora; or set token_weight to 0 and learn from captions alone"
                ) from error
