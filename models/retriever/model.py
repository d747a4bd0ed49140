"""The auxiliary retriever (arXiv 2409.01160, section on retrieval): ConvNeXt and a text encoder under one metric."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

from ..checkpoint import load_weights, read_config, save_member
from ..device import batches_by_length, full_precision
from ..distributed import gather_rows
from ..encoders.audio import AudioEncoder
from ..encoders.log_mel import pad_log_mels
from ..encoders.text import TextEncoder, text_batches
from ..normal_form import reading_form
from ..pairs import compare_pairs, distance
from ..settings import RetrieverConfig, RetrieverSettings
from .contrastive import nt_xent_loss, triplet_loss
from .optimal_transport import MahalanobisMetric, m_ltm_loss, pairwise_distance

LARGEST_SCALE = 100.0  # of the similarities in nt-xent, as in CLIP
CPU_FRAMES, GPU_FRAMES = 2**15, 2**18  # of log_mels in a batch, padding included: 32 clips of 10 s, and 256
SORTED_AT_ONCE = 1024  # clips that are sorted by length together: more need not be in memory


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
        return cls(config, audio_encoder, TextEncoder.create(config.text_encoder, _as_read(config, captions)))

    @classmethod
    def layout(cls, config: RetrieverConfig) -> Retriever:
        """Lay out what `create` builds on the meta device: shapes alone (see `TextEncoder.layout`)."""
        with torch.device("meta"):
            audio_encoder = AudioEncoder(config.audio_encoder, config.log_mel.n_mels)
            return cls(config, audio_encoder, TextEncoder.layout(config.text_encoder))

    @classmethod
    def load(cls, directory: str | Path, settings: RetrieverSettings | None = None) -> Retriever:
        """Load what `save` wrote; no network.

        Args:
            settings: to go on training with, instead of those of the saved model.

        Raises:
            CheckpointError: if files are missing, or the weights are not of the architecture in `settings`.
        """
        saved = read_config(RetrieverConfig, directory, cls.kind)
        config = RetrieverConfig(log_mel=saved.log_mel, **dict(settings)) if settings else saved
        text_encoder = TextEncoder.empty(saved.text_encoder, Path(directory) / "text_encoder")
        model = cls(config, AudioEncoder(config.audio_encoder, config.log_mel.n_mels), text_encoder)
        load_weights(model, directory)
        if settings:
            text_encoder.continue_training(settings.text_encoder)
            model.config = config.model_copy(update={"text_encoder": text_encoder.config})
        return model.eval()

    def save(self, directory: str | Path) -> None:
        """Write model.safetensors, config.json and text_encoder/ (layout and tokenizer)."""
        save_member(self, directory, self.kind, self.config)
        self.text_encoder.save_layout(Path(directory) / "text_encoder")

    def embed_audio(self, log_mel: Tensor, lengths: Tensor) -> Tensor:
        """Return unit-length embeddings [B, joint_dim] of log_mel [B, frames, mels] with `lengths` [B] valid frames."""
        return normalize(self.audio_projection(self.audio_encoder(log_mel, lengths)), dim=-1)

    def embed_text(self, texts: list[str]) -> Tensor:
        """Return unit-length embeddings [B, joint_dim] of B texts: captions, queries or candidates.

        All of them are read in the same form (`RetrieverSettings.captions`).
        """
        return normalize(self.text_projection(self.text_encoder(_as_read(self.config, texts))), dim=-1)

    def forward(
        self,
        log_mel: Tensor,
        lengths: Tensor,
        texts: list[str],
        clips: Tensor | None = None,
        chunk_size: int | None = None,
    ) -> Tensor:
        """Return the loss of a batch of matching pairs, of all workers together if there are several.

        Args:
            log_mel: [B, frames, mels].
            lengths: [B] valid frames.
            texts: B captions; caption i describes clip i.
            clips: [B] numbers of the clips, so that a clip that comes twice is not its own negative.
            chunk_size: pairs whose activations are held at a time. Of the other pairs only embeddings are kept, and
                each chunk is computed a second time for its gradient (GradCache, arXiv 2101.06983), so that the batch
                may be as large as suits the loss.
        """
        audio, text = self._embed_in_parts(log_mel, lengths, texts, chunk_size or len(texts))
        groups = None if clips is None else gather_rows(clips.to(audio.device))
        return self.pair_loss(gather_rows(audio), gather_rows(text), groups)

    def pair_loss(self, audio: Tensor, text: Tensor, groups: Tensor | None = None) -> Tensor:
        """Return the configured loss of matching pairs, over the distance that `similarity` ranks by.

        Everything that is trained outside the encoders and projections (metric, temperature) is applied here, in
        float32 also under autocast.

        Args:
            audio: [B, joint_dim], from `embed_audio`, already gathered from all workers.
            text: [B, joint_dim], from `embed_text`, likewise; row i describes row i of `audio`.
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

    def _embed_in_parts(
        self, log_mel: Tensor, lengths: Tensor, texts: list[str], chunk_size: int
    ) -> tuple[Tensor, Tensor]:
        """Return the embeddings of audio [B, joint_dim] and captions [B, joint_dim]."""
        if len(texts) <= chunk_size:
            return self._embed_pairs(log_mel, lengths, texts)
        parts = []
        for at in range(0, len(texts), chunk_size):
            rows = slice(at, at + chunk_size)
            frames = int(lengths[rows].max())
            parts.append(
                checkpoint(self._embed_pairs, log_mel[rows, :frames], lengths[rows], texts[rows], use_reentrant=False)
            )
        audio, text = zip(*parts, strict=True)
        return torch.cat(audio), torch.cat(text)

    def _embed_pairs(self, log_mel: Tensor, lengths: Tensor, texts: list[str]) -> tuple[Tensor, Tensor]:
        return self.embed_audio(*self._to_device(log_mel, lengths)), self.embed_text(texts)

    def _to_device(self, log_mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        device = self.metric.factor.device
        return log_mel.to(device, non_blocking=True), lengths.to(device, non_blocking=True)

    @torch.inference_mode()
    def audio_embeddings(self, log_mels: Sequence[np.ndarray]) -> np.ndarray:
        """Return the `audio_embedding` of N clips, [N, joint_dim] float32, from log_mels [frames_i, mels]."""
        embeddings = np.empty((len(log_mels), self.config.joint_dim), np.float32)
        budget = CPU_FRAMES if self.metric.factor.device.type == "cpu" else GPU_FRAMES
        for at in range(0, len(log_mels), SORTED_AT_ONCE):
            some = [log_mels[row] for row in range(at, min(at + SORTED_AT_ONCE, len(log_mels)))]
            for rows in batches_by_length([len(log_mel) for log_mel in some], budget):
                batch = self.embed_audio(*self._to_device(*pad_log_mels([some[row] for row in rows])))
                embeddings[at + np.array(rows)] = batch.float().cpu().numpy()
        return embeddings

    @torch.inference_mode()
    def text_embeddings(self, texts: list[str]) -> np.ndarray:
        """Return the caption embeddings of N texts, [N, joint_dim] float32."""
        embeddings = np.empty((len(texts), self.config.joint_dim), np.float32)
        for rows in text_batches(texts):
            embeddings[rows] = self.embed_text([texts[row] for row in rows]).float().cpu().numpy()
        return embeddings

    @torch.inference_mode()
    def under_metric(self, embeddings: np.ndarray) -> np.ndarray:
        """Map embeddings [N, joint_dim] to where the learned distance is Euclidean, [N, joint_dim] float32."""
        mapped: Tensor = self.metric(torch.from_numpy(embeddings).to(self.metric.factor.device))
        return mapped.cpu().numpy()

    def before_metric(self, mapped: np.ndarray) -> np.ndarray:
        """Undo `under_metric` on rows [N, joint_dim]; along directions that the metric ignores, they are lost."""
        factor = self.metric.factor.detach().cpu().double().numpy()
        return mapped / factor if factor.ndim == 1 else mapped @ np.linalg.pinv(factor).T

    def similarity(self, text_embeddings: np.ndarray, audio_embeddings: np.ndarray) -> np.ndarray:
        """Return negative Mahalanobis distances [texts, clips], not the transductive transport plan."""
        return negative_distances(self.under_metric(text_embeddings), self.under_metric(audio_embeddings))

    def pair_similarity(
        self, text_embeddings: np.ndarray, texts: np.ndarray, audio_embeddings: np.ndarray, clips: np.ndarray
    ) -> np.ndarray:
        """Return the cells (texts[p], clips[p]) of `similarity`, [P], without computing the rest."""
        text, audio = self.under_metric(text_embeddings), self.under_metric(audio_embeddings)
        return -compare_pairs(distance, text, texts, audio, clips)


@torch.inference_mode()
def negative_distances(texts: np.ndarray, clips: np.ndarray | Tensor, device: torch.device | str = "cpu") -> np.ndarray:
    """Return the similarity [texts, clips] of embeddings from `Retriever.under_metric`, computed on a device."""
    with full_precision():
        distances = pairwise_distance(torch.from_numpy(texts).to(device), torch.as_tensor(clips).to(device))
        return distances.neg_().cpu().numpy()


def _as_read(config: RetrieverSettings, texts: Iterable[str]) -> list[str]:
    return [reading_form(text) if config.captions == "normalised" else text for text in texts]


def _projection(dim: int, config: RetrieverConfig) -> nn.Module:
    return nn.Sequential(
        nn.Linear(dim, config.hidden_dim),
        nn.ReLU(),
        nn.Dropout(config.dropout),
        nn.Linear(config.hidden_dim, config.joint_dim),
    )
