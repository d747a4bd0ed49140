"""The auxiliary retriever (arXiv 2409.01160, section on retrieval): ConvNeXt and a text encoder under one metric."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from models.audio_encoder import AudioEncoder
from models.checkpoint import load_weights, read_config, save_member
from models.contrastive import nt_xent_loss, triplet_loss
from models.distributed import gather_rows
from models.log_mel import pad_log_mels
from models.optimal_transport import MahalanobisMetric, m_ltm_loss, pairwise_distance
from models.settings import RetrieverConfig
from models.text_encoder import TextEncoder

PAIRS_AT_ONCE = 65_536
LARGEST_SCALE = 100.0  # of the similarities in nt-xent, as in CLIP


class Retriever(nn.Module):
    """Audio and captions in one space, compared by a learned Mahalanobis distance."""

    kind = "retriever"

    def __init__(self, config: RetrieverConfig, audio_encoder: AudioEncoder, text_encoder: TextEncoder) -> None:
        super().__init__()
        self.config = config.model_copy(update={"text_encoder": text_encoder.config})
        self.audio_encoder = audio_encoder
        self.text_encoder = text_encoder
        self.audio_projection = _projection(audio_encoder.dim, config)
        self.text_projection = _projection(text_encoder.dim, config)
        self.metric = MahalanobisMetric(config.joint_dim, config.metric)
        if config.loss == "nt-xent":
            self.log_scale = nn.Parameter(torch.tensor(-math.log(config.temperature)))

    @classmethod
    def create(cls, config: RetrieverConfig, captions: Iterable[str]) -> Retriever:
        """Build for training; `captions` train the tokenizer of a text encoder from scratch.

        Raises:
            CheckpointError: if the audio encoder's checkpoint cannot be loaded.
        """
        audio_encoder = AudioEncoder.create(config.audio_encoder, config.log_mel.n_mels)
        return cls(config, audio_encoder, TextEncoder.create(config.text_encoder, captions))

    @classmethod
    def load(cls, directory: str | Path) -> Retriever:
        """Load what `save` wrote; no network."""
        config = RetrieverConfig.model_validate(read_config(directory, cls.kind))
        audio_encoder = AudioEncoder(config.audio_encoder, config.log_mel.n_mels)
        model = cls(config, audio_encoder, TextEncoder.empty(config.text_encoder, Path(directory) / "text_encoder"))
        load_weights(model, directory)
        return model.eval()

    def save(self, directory: str | Path) -> None:
        """Write model.safetensors, config.json and text_encoder/ (layout and tokenizer)."""
        save_member(self, directory, self.kind, self.config)
        self.text_encoder.save_layout(Path(directory) / "text_encoder")

    def embed_audio(self, log_mel: Tensor, lengths: Tensor) -> Tensor:
        """Unit-length audio embeddings [B, joint_dim] of log_mel [B, frames, mels] with `lengths` [B] valid frames."""
        return normalize(self.audio_projection(self.audio_encoder(log_mel, lengths)), dim=-1)

    def embed_text(self, texts: list[str]) -> Tensor:
        """Unit-length caption embeddings [B, joint_dim]."""
        return normalize(self.text_projection(self.text_encoder(texts)), dim=-1)

    def forward(self, log_mel: Tensor, lengths: Tensor, texts: list[str]) -> Tensor:
        """The loss of a batch of matching pairs; on several workers, of the batches of all."""
        return self.pair_loss(gather_rows(self.embed_audio(log_mel, lengths)), gather_rows(self.embed_text(texts)))

    def pair_loss(self, audio: Tensor, text: Tensor, groups: Tensor | None = None) -> Tensor:
        """The configured loss of matching pairs, each over the distance that `similarity` ranks by.

        Everything that is trained outside the encoders and projections (metric, temperature) is applied here, in
        float32 under autocast, too.

        Args:
            audio: [B, joint_dim], of `embed_audio`, already gathered from all workers.
            text: [B, joint_dim], of `embed_text`, likewise; row i describes row i of `audio`.
            groups: [B] integers, equal for pairs of the same clip, which then are not each other's negatives.
        """
        config = self.config
        with torch.autocast(audio.device.type, enabled=False):
            audio, text = (self.metric(rows.to(self.metric.factor.dtype)) for rows in (audio, text))
            if config.loss == "m-ltm":
                return m_ltm_loss(audio, text, config.epsilon, config.transported_mass, groups)
            if config.loss == "triplet":
                return triplet_loss(audio, text, config.margin, groups, config.hard_negatives)
            with torch.no_grad():
                self.log_scale.clamp_(max=math.log(LARGEST_SCALE))
            return nt_xent_loss(audio, text, self.log_scale.exp(), groups, config.hard_negatives)

    @torch.inference_mode()
    def audio_embeddings(self, log_mels: Sequence[np.ndarray], batch_size: int = 32) -> np.ndarray:
        """`audio_embedding` of many clips, [N, joint_dim] float32, from log_mels [frames_i, mels]."""
        by_length = np.argsort([len(log_mel) for log_mel in log_mels], kind="stable")
        embeddings = np.empty((len(log_mels), self.config.joint_dim), np.float32)
        device = self.metric.factor.device
        for at in range(0, len(by_length), batch_size):
            rows = by_length[at : at + batch_size]
            batch, lengths = pad_log_mels([log_mels[row] for row in rows])
            embeddings[rows] = self.embed_audio(batch.to(device), lengths.to(device)).float().cpu().numpy()
        return embeddings

    @torch.inference_mode()
    def text_embeddings(self, texts: list[str], batch_size: int = 256) -> np.ndarray:
        """Caption embeddings of many texts, [N, joint_dim] float32."""
        batches = [self.embed_text(texts[at : at + batch_size]) for at in range(0, len(texts), batch_size)]
        return torch.cat(batches).float().cpu().numpy()

    @torch.inference_mode()
    def similarity(self, text_embeddings: np.ndarray, audio_embeddings: np.ndarray) -> np.ndarray:
        """Negative Mahalanobis distances [texts, clips]; plain, not the transductive transport plan."""
        device = self.metric.factor.device
        text = self.metric(torch.from_numpy(text_embeddings).to(device))
        audio = self.metric(torch.from_numpy(audio_embeddings).to(device))
        return -pairwise_distance(text, audio).cpu().numpy()

    @torch.inference_mode()
    def pair_similarity(
        self, text_embeddings: np.ndarray, texts: np.ndarray, audio_embeddings: np.ndarray, clips: np.ndarray
    ) -> np.ndarray:
        """The cells (texts[p], clips[p]) of `similarity`, [P], without the rest of the matrix."""
        device = self.metric.factor.device
        text = self.metric(torch.from_numpy(text_embeddings).to(device))
        audio = self.metric(torch.from_numpy(audio_embeddings).to(device))
        found = []
        for at in range(0, len(texts), PAIRS_AT_ONCE):
            some = slice(at, at + PAIRS_AT_ONCE)
            found.append((text[texts[some]] - audio[clips[some]]).norm(dim=-1))
        return -torch.cat(found).cpu().numpy()


def _projection(dim: int, config: RetrieverConfig) -> nn.Module:
    return nn.Sequential(
        nn.Linear(dim, config.hidden_dim),
        nn.ReLU(),
        nn.Dropout(config.dropout),
        nn.Linear(config.hidden_dim, config.joint_dim),
    )
