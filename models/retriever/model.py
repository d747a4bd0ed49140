"""The auxiliary retriever (arXiv 2409.01160, section on retrieval): ConvNeXt and a text encoder under one metric."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

from ..checkpoint import load_weights, naming, read_config, save_member
from ..device import batches_by_length, full_precision
from ..distributed import gather_rows
from ..encoders.audio import AudioEncoder
from ..encoders.audio_transformer import AudioTransformer
from ..encoders.text import TextEncoder, text_batches
from ..normal_form import reading_form
from ..pairs import compare_pairs, distance
from ..settings import RetrieverConfig, RetrieverSettings
from .contrastive import nt_xent_loss, triplet_loss
from .distillation import MARGIN_TEMPERATURE, LossScale, SoftTargets
from .hard_negatives import WrongTexts, cross_entropy_of_own, hinge_of_own, row_distance
from .optimal_transport import MahalanobisMetric, m_ltm_loss, pairwise_distance

LARGEST_SCALE = 100.0  # of the similarities in nt-xent, as in CLIP
CPU_FRAMES, GPU_FRAMES = 2**15, 2**18  # of log_mels in a batch, padding included: 32 clips of 10 s, and 256
SORTED_AT_ONCE = 1024  # clips that are sorted by length together: more need not be in memory


class Retriever(nn.Module):
    """Audio and captions in one space, compared by a learned Mahalanobis distance."""

    kind = "retriever"

    def __init__(
        self, config: RetrieverConfig, audio_encoder: AudioEncoder | AudioTransformer, text_encoder: TextEncoder
    ) -> None:
        super().__init__()
        self.config = config.model_copy(update={"text_encoder": text_encoder.config})
        self.audio_encoder = audio_encoder
        self.text_encoder = text_encoder
        self.audio_projection = _projection(audio_encoder.dim, config)
        self.text_projection = _projection(text_encoder.dim, config)
        self.metric = MahalanobisMetric(config.joint_dim, config.metric)
        if config.loss == "nt-xent":
            self.log_scale = nn.Parameter(torch.tensor(-math.log(config.temperature)))

    @property
    def waveform_rate(self) -> int | None:
        """Return the sampling rate in Hz of the waveforms that it reads; None where it reads log-mels."""
        return self.config.audio_encoder.waveform_rate

    @classmethod
    def create(cls, config: RetrieverConfig, captions: Iterable[str]) -> Retriever:
        """Build for training; `captions` train the tokenizer of a text encoder from scratch.

        Raises:
            CheckpointError: if the audio encoder's checkpoint cannot be loaded.
        """
        audio_encoder = _encoder_class(config).create(config.audio_encoder, config.log_mel.n_mels)
        return cls(config, audio_encoder, TextEncoder.create(config.text_encoder, _as_read(config, captions)))

    @classmethod
    def layout(cls, config: RetrieverConfig) -> Retriever:
        """Lay out what `create` builds on the meta device: shapes alone (see `TextEncoder.layout`)."""
        audio_encoder = _encoder_class(config).layout(config.audio_encoder, config.log_mel.n_mels)
        with torch.device("meta"):
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
        adapters = saved.audio_encoder.model_dump(include={"finetuning", "frozen_layers", "lora_rank", "lora_alpha"})
        as_saved = config.audio_encoder.model_copy(update=adapters)
        layout = Path(directory) / "audio_encoder"
        with naming(Path(directory) / "config.json"):
            audio_encoder = _encoder_class(config).empty(as_saved, saved.log_mel.n_mels, layout)
            model = cls(config, audio_encoder, text_encoder)
        load_weights(model, directory)
        if settings:
            text_encoder.continue_training(settings.text_encoder)
            audio_encoder.continue_training(settings.audio_encoder)
            model.config = config.model_copy(update={"text_encoder": text_encoder.config})
        return model.eval()

    def save(self, directory: str | Path) -> None:
        """Write model.safetensors, config.json, the layouts in text_encoder/ and audio_encoder/, and the tokenizer."""
        save_member(self, directory, self.kind, self.config)
        self.audio_encoder.save_layout(Path(directory) / "audio_encoder")
        self.text_encoder.save_layout(Path(directory) / "text_encoder")

    def merge_adapters(self) -> None:
        """Merge the audio encoder's low-rank adapters into its weights, if there are any."""
        self.audio_encoder.merge_adapters()
        self.config = self.config.model_copy(update={"audio_encoder": self.audio_encoder.config})

    def embed_audio(self, log_mel: Tensor, lengths: Tensor) -> Tensor:
        """Return unit-length embeddings [B, joint_dim] of a batch as the encoder's front end collates it.

        That is log_mel [B, frames, mels] with `lengths` [B] valid frames, or the windows of waveforms
        (`AudioWindows.collate`).
        """
        return normalize(self.audio_projection(self.audio_encoder(log_mel, lengths)), dim=-1)

    def embed_longest(self, clips: int, seconds: float) -> Tensor:
        """Embed silent clips of `seconds` by an encoder of transformers, [clips, joint_dim], to see what that takes.

        All windows share a pass, as those of clips of one length do.
        """
        encoder = self.audio_encoder
        assert isinstance(encoder, AudioTransformer)
        windows, samples = encoder.front_end.longest(seconds)
        shape, number = encoder.front_end.shape(samples), clips * windows
        silence = torch.zeros(number, *shape, device=self.metric.factor.device)
        found = encoder.embed_windows(silence, [samples] * number)
        return normalize(self.audio_projection(found.reshape(clips, windows, -1).mean(1)), dim=-1)

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
        soft_targets: SoftTargets | None = None,
        wrong: Sequence[Sequence[str]] | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """Return the loss of a batch of matching pairs, of all workers together if there are several.

        Args:
            log_mel: [B, frames, mels].
            lengths: [B] valid frames.
            texts: B captions; caption i describes clip i.
            clips: [B] numbers of the clips, so that a clip that comes twice is not its own negative.
            chunk_size: pairs whose activations are held at a time. Of the other pairs only embeddings are kept, and
                each chunk is computed a second time for its gradient (GradCache, arXiv 2101.06983), so that the batch
                may be as large as suits the loss.
            soft_targets: what teachers say of these pairs.
            wrong: for each of the B clips captions that are wrong for it (`wrong_captions`), or none.

        Returns:
            The loss; with `soft_targets` the losses by name: `loss` and its two parts, `pair_loss` and
            `distillation_loss`.
        """
        chunk_size = chunk_size or len(texts)
        audio, text = self._embed_in_parts(log_mel, lengths, texts, chunk_size)
        groups = None if clips is None else gather_rows(clips.to(audio.device))
        all_audio, all_text = gather_rows(audio), gather_rows(text)
        own = self.pair_loss(all_audio, all_text, groups)
        settings = self.config.wrong_captions
        if settings is not None and wrong and any(wrong):
            changed = [one for of_clip in wrong for one in of_clip]
            negatives = WrongTexts.of_clips(wrong, self._embed_texts_in_parts(changed, chunk_size))
            largest = self._largest_distance(all_audio, all_text) if self.config.loss == "m-ltm" else None
            own = own + settings.weight * self._wrong_caption_loss(audio, text, negatives, largest)
        return own if soft_targets is None else soft_targets.join(own, self._logits(all_text, all_audio))

    @property
    def loss_scale(self) -> LossScale:
        """The scale of its similarities in the softmax of its loss."""
        trained = self.config.loss == "nt-xent"
        return LossScale(
            self.config.loss, self.config.epsilon, self.log_scale.exp() if trained else 1 / MARGIN_TEMPERATURE
        )

    def _logits(self, text: Tensor, audio: Tensor) -> Tensor:
        """Return the logits [texts, clips] at the scale of the loss, in float32 also under autocast."""
        with torch.autocast(audio.device.type, enabled=False):
            return self.loss_scale.logits(self._distances(text, audio))

    def _distances(self, text: Tensor, audio: Tensor) -> Tensor:
        """Return the distances [texts, clips] of embeddings under the metric, in float32 also under autocast."""
        with torch.autocast(audio.device.type, enabled=False):
            return pairwise_distance(*(self.metric(rows.to(self.metric.factor.dtype)) for rows in (text, audio)))

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

    def _wrong_caption_loss(self, audio: Tensor, text: Tensor, wrong: WrongTexts, largest: Tensor | None) -> Tensor:
        """Return the loss of a worker's own clips among their wrong captions (see `hard_negatives`).

        Args:
            audio: [B, joint_dim], of this worker: with as many clips on each, the mean over workers is that of all.
            text: [B, joint_dim], likewise.
            wrong: of these clips.
            largest: m-ltm: the largest distance in the batch of all workers, the unit of its costs.
        """
        config = self.config
        with torch.autocast(audio.device.type, enabled=False):
            audio, text, negatives = (self._mapped(rows) for rows in (audio, text, wrong.embeddings))
            wrong = replace(wrong, embeddings=negatives)
            right, others = row_distance(audio, text), wrong.distances(audio)
            if largest is not None:
                scale = -1 / (config.epsilon * largest)
                return cross_entropy_of_own(scale * right, wrong.spread(scale * others, len(audio), -torch.inf))
            right, others = right.square() / -2, others.square() / -2
            if config.loss == "triplet":
                return hinge_of_own(right, wrong.spread(others, len(audio), -torch.inf), config.margin)
            scale = self.log_scale.exp()
            return cross_entropy_of_own(scale * right, wrong.spread(scale * others, len(audio), -torch.inf))

    def _largest_distance(self, audio: Tensor, text: Tensor) -> Tensor:
        with torch.autocast(audio.device.type, enabled=False):
            return pairwise_distance(self._mapped(audio), self._mapped(text)).max()

    def _mapped(self, rows: Tensor) -> Tensor:
        mapped: Tensor = self.metric(rows.to(self.metric.factor.dtype))
        return mapped

    def _embed_texts_in_parts(self, texts: list[str], chunk_size: int) -> Tensor:
        """Return the embeddings [M, joint_dim] of M texts; the activations of `chunk_size` are held at a time."""
        if len(texts) <= chunk_size:
            return self.embed_text(texts)
        parts = [texts[at : at + chunk_size] for at in range(0, len(texts), chunk_size)]
        return torch.cat([checkpoint(self.embed_text, part, use_reentrant=False) for part in parts])

    def _embed_in_parts(
        self, log_mel: Tensor, lengths: Tensor, texts: list[str], chunk_size: int
    ) -> tuple[Tensor, Tensor]:
        """Return the embeddings of audio [B, joint_dim] and captions [B, joint_dim]."""
        if len(texts) <= chunk_size:
            return self._embed_pairs(log_mel, lengths, texts)
        parts = []
        for at in range(0, len(texts), chunk_size):
            rows = slice(at, at + chunk_size)
            trimmed = self.audio_encoder.trim(log_mel[rows], lengths[rows])
            own = lengths[rows, : trimmed.shape[1]] if lengths.dim() > 1 else lengths[rows]
            parts.append(checkpoint(self._embed_pairs, trimmed, own, texts[rows], use_reentrant=False))
        audio, text = zip(*parts, strict=True)
        return torch.cat(audio), torch.cat(text)

    def _embed_pairs(self, log_mel: Tensor, lengths: Tensor, texts: list[str]) -> tuple[Tensor, Tensor]:
        return self.embed_audio(*self._to_device(log_mel, lengths)), self.embed_text(texts)

    def _to_device(self, log_mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        device = self.metric.factor.device
        if isinstance(self.audio_encoder, AudioTransformer):  # which goes by the lengths, and would wait for the GPU
            return log_mel.to(device, non_blocking=True), lengths
        return log_mel.to(device, non_blocking=True), lengths.to(device, non_blocking=True)

    @torch.inference_mode()
    def audio_embeddings(self, log_mels: Sequence[np.ndarray]) -> np.ndarray:
        """Return the `audio_embedding` of N clips, [N, joint_dim] float32.

        Args:
            log_mels: [frames_i, mels]; or, where `waveform_rate` is set, waveforms [samples_i] at this rate, as 16-bit
                integers or as floats in -1..1.
        """
        front_end = self.audio_encoder.front_end
        embeddings = np.empty((len(log_mels), self.config.joint_dim), np.float32)
        budget = CPU_FRAMES if self.metric.factor.device.type == "cpu" else GPU_FRAMES
        for at in range(0, len(log_mels), SORTED_AT_ONCE):
            some = [log_mels[row] for row in range(at, min(at + SORTED_AT_ONCE, len(log_mels)))]
            for rows in batches_by_length([front_end.cost(log_mel) for log_mel in some], budget):
                batch = self.embed_audio(*self._to_device(*front_end.collate([some[row] for row in rows])))
                embeddings[at + np.array(rows)] = batch.float().cpu().numpy()
        return embeddings

    @torch.inference_mode()
    def text_embeddings(self, texts: list[str]) -> np.ndarray:
        """Return the caption embeddings of N texts, [N, joint_dim] float32."""
        embeddings = np.empty((len(texts), self.config.joint_dim), np.float32)
        for rows in text_batches(texts):
            embeddings[rows] = self.embed_text([texts[row] for row in rows]).float().cpu().numpy()
        return embeddings

    def reads_whole(self, text: str) -> bool:
        """Return whether all of a text is embedded: the text encoder reads its first tokens alone."""
        (read,) = _as_read(self.config, [text])
        return self.text_encoder.reads_whole(read)

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


def merge_saved_adapters(directory: str | Path) -> None:
    """Replace a saved retriever by one with plain weights, into which its low-rank adapters are merged."""
    retriever = Retriever.load(directory)
    retriever.merge_adapters()
    retriever.save(directory)


@torch.inference_mode()
def negative_distances(texts: np.ndarray, clips: np.ndarray | Tensor, device: torch.device | str = "cpu") -> np.ndarray:
    """Return the similarity [texts, clips] of embeddings from `Retriever.under_metric`, computed on a device."""
    with full_precision():
        distances = pairwise_distance(torch.from_numpy(texts).to(device), torch.as_tensor(clips).to(device))
        return distances.neg_().cpu().numpy()


def _encoder_class(config: RetrieverSettings) -> type[AudioEncoder] | type[AudioTransformer]:
    return AudioTransformer if config.audio_encoder.transformer else AudioEncoder


def _as_read(config: RetrieverSettings, texts: Iterable[str]) -> list[str]:
    return [reading_form(text) if config.captions == "normalised" else text for text in texts]


def _projection(dim: int, config: RetrieverConfig) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(dim, config.hidden_dim),
        nn.ReLU(),
        nn.Dropout(config.dropout),
        nn.Linear(config.hidden_dim, config.joint_dim),
    )
