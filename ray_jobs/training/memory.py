"""How much memory a member's training state takes, from its settings: the model is laid out without any weights."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM

from models.captioner.model import Captioner
from models.codec.base import load_codec
from models.codec.weights import CodecError
from models.encoders.audio import AudioEncoder
from models.encoders.text import TextEncoder
from models.fluency.detector import FluencyDetector
from models.retriever.model import Retriever
from models.settings import (
    RANDOM,
    CaptionerConfig,
    FluencyDetectorConfig,
    RetrieverConfig,
    TextEncoderConfig,
)
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.member_config import CaptionerMember, RetrieverMember

FLOAT32 = 4  # bytes; autocast leaves weights and optimizer in it


def training_state_bytes(experiment: Experiment, name: str) -> int | None:
    """Bytes a worker keeps of weights, their moving average, gradients and AdamW's two moments; no activations.

    Tokenizers that are still to be trained count with all of `vocab_size`. None: the sizes are those of a checkpoint
    or codec that is not on this disk.
    """
    try:
        model = layout(experiment, name)
    except (CodecError, OSError):
        return None
    member = experiment.members[name]
    weights = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    copies = 2 if member.training.ema_decay else 1
    gradients = 2 if member.resources.worker_range[-1] > 1 else 1  # DistributedDataParallel sends them from buckets
    return FLOAT32 * (copies * weights + (gradients + 2) * trained)


def layout(experiment: Experiment, name: str) -> nn.Module:
    """The member's model on torch's meta device: shapes alone.

    Raises:
        CodecError, OSError: if the sizes are those of a checkpoint that is not on this disk.
    """
    member = experiment.members[name]
    with torch.device("meta"):
        if isinstance(member, RetrieverMember):
            retriever = member.convert(RetrieverConfig, log_mel=experiment.features.log_mel)
            audio = AudioEncoder(retriever.audio_encoder, retriever.log_mel.n_mels)
            return Retriever(retriever, audio, _text_encoder(retriever.text_encoder))
        if isinstance(member, CaptionerMember):
            return _captioner(experiment, member)
        return FluencyDetector(member.convert(FluencyDetectorConfig), _text_encoder(member.text_encoder))


def _captioner(experiment: Experiment, member: CaptionerMember) -> Captioner:
    with torch.device("cpu"):
        codec = load_codec(experiment.features.codec, experiment.features.codebooks)
    retrievers = [experiment.members[name] for name in member.retrievers()]
    config = member.convert(
        CaptionerConfig, codebooks=codec.n_codebooks, codebook_size=codec.codebook_size,
        audio_embedding_dim=sum(r.joint_dim for r in retrievers if isinstance(r, RetrieverMember)),
    )  # fmt: skip
    sizes = {**config.sizes, "vocab_size": config.vocab_size}
    bart = AutoModelForSeq2SeqLM.from_config(_config_of(config.checkpoint or config.language_model, sizes))
    return Captioner(config, bart, _NO_TOKENIZER)


def _text_encoder(config: TextEncoderConfig) -> TextEncoder:
    sizes = {"max_position_embeddings": config.max_tokens + 2, **config.sizes, "vocab_size": config.vocab_size}
    return TextEncoder(AutoModel.from_config(_config_of(config.name, sizes)), _NO_TOKENIZER, config)


def _config_of(name: str, sizes: dict[str, Any]) -> Any:
    """A transformers config: `sizes` of a random one, of others what their directory or the hub's cache says."""
    if name.startswith(RANDOM):
        return AutoConfig.for_model(name.removeprefix(RANDOM), **sizes)
    return AutoConfig.from_pretrained(name, local_files_only=True)


_NO_TOKENIZER: Any = SimpleNamespace(bos_token_id=0, pad_token_id=1, eos_token_id=2)  # layouts ask for no more
