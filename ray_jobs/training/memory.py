"""Estimate the memory of a member's training state from its settings, on a layout of the model without weights."""

from __future__ import annotations

from torch import nn

from models.captioner.model import Captioner
from models.codec.base import load_codec
from models.errors import InputError
from models.fluency.detector import FluencyDetector
from models.retriever.model import Retriever
from models.settings import CaptionerConfig, FluencyDetectorConfig, RetrieverConfig
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.member_config import CaptionerMember, RetrieverMember

FLOAT32 = 4  # bytes; autocast leaves weights and optimizer in it


def training_state_bytes(experiment: Experiment, name: str) -> int | None:
    """Return the bytes a worker keeps of weights, their moving average, gradients and AdamW's two moments.

    Activations are not counted. Tokenizers that are still to be trained count with all of `vocab_size`.

    Returns:
        None if the sizes are those of a checkpoint or codec that is not on this disk.
    """
    try:
        model = layout(experiment, name)
    except (InputError, OSError):
        return None
    member = experiment.members[name]
    weights = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    copies = 2 if member.training.ema_decay else 1
    gradients = 2 if member.resources.worker_range[-1] > 1 else 1  # DistributedDataParallel sends them from buckets
    return FLOAT32 * (copies * weights + (gradients + 2) * trained)


def layout(experiment: Experiment, name: str) -> nn.Module:
    """Lay out the member's model on torch's meta device: shapes alone.

    Raises:
        InputError, OSError: if the sizes are those of a checkpoint or codec that is not on this disk.
    """
    member = experiment.members[name]
    if isinstance(member, RetrieverMember):
        return Retriever.layout(member.convert(RetrieverConfig, log_mel=experiment.features.log_mel))
    if isinstance(member, CaptionerMember):
        return Captioner.layout(_captioner_config(experiment, member))
    return FluencyDetector.layout(member.convert(FluencyDetectorConfig))


def _captioner_config(experiment: Experiment, member: CaptionerMember) -> CaptionerConfig:
    """Complete a captioner's settings by the shapes of its inputs."""
    codec = load_codec(experiment.features.codec, experiment.features.codebooks)
    retrievers = [experiment.members[name] for name in member.retrievers()]
    return member.convert(
        CaptionerConfig,
        codebooks=codec.n_codebooks,
        codebook_size=codec.codebook_size,
        audio_embedding_dim=sum(r.joint_dim for r in retrievers if isinstance(r, RetrieverMember)),
    )
