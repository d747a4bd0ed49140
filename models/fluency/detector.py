"""The fluency-error detector, after FENSE's (arXiv 2110.04684): the probability that a caption is damaged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ..checkpoint import load_weights, read_config, save_member
from ..encoders.text import TextEncoder, text_batches
from ..settings import FluencyDetectorConfig
from .damage import DAMAGES, damage_as
from .fense_checkpoint import OUTPUTS, load_fense_weights, plain_words


class FluencyDetector(nn.Module):
    """A text encoder and a linear layer with one output, or with the six of FENSE's published detector.

    The published one reads texts without punctuation (`plain_words`), and its last output is the one that counts.
    """

    kind = "fluency-detector"

    def __init__(self, config: FluencyDetectorConfig, text_encoder: TextEncoder) -> None:
        super().__init__()
        self.config = config.model_copy(update={"text_encoder": text_encoder.config})
        self.text_encoder = text_encoder
        self.head = nn.Linear(text_encoder.dim, len(OUTPUTS) if config.checkpoint else 1)

    @classmethod
    def create(cls, config: FluencyDetectorConfig, captions: Iterable[str]) -> FluencyDetector:
        """Build for training, or load the published detector that `config` names.

        Args:
            captions: they train the tokenizer of a text encoder from scratch.

        Raises:
            CheckpointError: if published weights cannot be loaded.
        """
        if config.checkpoint:
            encoder = config.text_encoder.model_copy(update={"pooling": "cls"})
            detector = cls(config, TextEncoder.unfilled(encoder))
            load_fense_weights(detector, config.checkpoint, encoder.name)
            return detector
        return cls(config, TextEncoder.create(config.text_encoder, captions))

    @classmethod
    def layout(cls, config: FluencyDetectorConfig) -> FluencyDetector:
        """Lay out what `create` builds on the meta device: shapes alone (see `TextEncoder.layout`)."""
        with torch.device("meta"):
            return cls(config, TextEncoder.layout(config.text_encoder))

    @classmethod
    def load(cls, directory: str | Path, settings: FluencyDetectorConfig | None = None) -> FluencyDetector:
        """Load what `save` wrote, under other `settings` if given; no network."""
        config = read_config(FluencyDetectorConfig, directory, cls.kind)
        model = cls(config, TextEncoder.empty(config.text_encoder, Path(directory) / "text_encoder"))
        load_weights(model, directory)
        if settings:
            model.text_encoder.continue_training(settings.text_encoder)
            model.config = settings.model_copy(update={"text_encoder": model.text_encoder.config})
        return model.eval()

    def save(self, directory: str | Path) -> None:
        """Write model.safetensors, config.json and text_encoder/ (layout and tokenizer)."""
        save_member(self, directory, self.kind, self.config)
        self.text_encoder.save_layout(Path(directory) / "text_encoder")

    def forward(self, texts: list[str], damaged: Tensor) -> Tensor:
        """Return the binary cross-entropy of B texts against damaged [B] (1: damaged)."""
        return binary_cross_entropy_with_logits(self.logits(texts), damaged)

    def logits(self, texts: list[str]) -> Tensor:
        """Return the values [B] of texts before the sigmoid."""
        if self.config.checkpoint:
            texts = [plain_words(text) for text in texts]
        found: Tensor = self.head(self.text_encoder(texts))
        return found[:, -1]

    @torch.inference_mode()
    def fluency_error(self, texts: list[str]) -> np.ndarray:
        """Return the probability [N] that each text is damaged, float32."""
        errors = np.empty(len(texts), np.float32)
        for rows in text_batches(texts):
            errors[rows] = self.logits([texts[row] for row in rows]).sigmoid().float().cpu().numpy()
        return errors


class ErrorEstimator(Protocol):
    """A model that judges captions."""

    def fluency_error(self, texts: list[str]) -> np.ndarray:
        """Return the probability [N] that each text is damaged."""


def detection(detector: ErrorEstimator, captions: Sequence[str], threshold: float, seed: int = 0) -> dict[str, Any]:
    """Measure how well a detector tells captions from the same captions damaged, for each type of damage.

    Args:
        captions: held out of its training, none of them blank. They count as fluent.
        threshold: a caption with a higher probability is flagged.

    Returns:
        `threshold`, `captions` (their number), `flagged` (the share of them that is flagged), and `damage`: for each
        type the number of `captions` that it can be done to, and `precision` and `recall` on these and their damaged
        copies, None if nothing is flagged or no caption is left.
    """
    rng, texts = np.random.default_rng(seed), list(captions)
    flagged = detector.fluency_error(texts) > threshold
    found: dict[str, Any] = {}
    for kind in DAMAGES:
        damaged = [damage_as(kind, text, rng) for text in texts]
        fits = np.array([text is not None for text in damaged])
        number, wrong, caught = int(fits.sum()), int(flagged[fits].sum()), 0
        if number:
            caught = int((detector.fluency_error([text for text in damaged if text]) > threshold).sum())
        found[kind] = {
            "captions": number,
            "precision": caught / (caught + wrong) if caught + wrong else None,
            "recall": caught / number if number else None,
        }
    return {"threshold": threshold, "captions": len(texts), "flagged": float(flagged.mean()), "damage": found}
