"""Let several captioners agree on one caption a clip: each proposes by beam search, and all of them judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..captioner.model import Captioner
from ..settings import BeamConfig
from .candidates import search
from .proposals import ClipInputs


@dataclass(frozen=True)
class AgreedCaption:
    """The caption of a clip on which captioners agree."""

    text: str
    captioner: str  # the first that proposed it
    log_likelihood: float  # of a token, the mean over all captioners


@dataclass(frozen=True)
class _Encoded:
    """A captioner's states [B, R, width] and mask [B, R] of a batch of clips."""

    captioner: Captioner
    states: Tensor
    mask: Tensor

    def log_likelihood(self, texts: list[str], clips: Tensor) -> Tensor:
        """Return the log-likelihood a token of each text [N] for the clip of its row in `clips` [N]."""
        return self.captioner.log_likelihood(self.states[clips], self.mask[clips], texts)


@torch.inference_mode()
def agreed_captions(
    captioners: Mapping[str, Captioner], clips: ClipInputs, beam: BeamConfig, batch_size: int = 32
) -> list[AgreedCaption]:
    """Return for each of N clips the proposed caption of the highest mean log-likelihood over all captioners.

    Every clip is encoded once by every captioner. Of equals, the caption of the captioner that is named first is taken.

    Args:
        captioners: by name, in evaluation mode.
        clips: their codes, and for each captioner the audio embeddings that it reads.
        beam: the search of each captioner.
    """
    found: dict[int, AgreedCaption] = {}
    order = np.argsort([len(codes) for codes in clips.codes], kind="stable")
    for at in range(0, len(order), batch_size):
        rows = order[at : at + batch_size]
        encoded = {name: _encode(captioner, name, clips, rows) for name, captioner in captioners.items()}
        found |= dict(zip(rows.tolist(), _agree(encoded, beam), strict=True))
    return [found[row] for row in range(len(order))]


def _encode(captioner: Captioner, name: str, clips: ClipInputs, rows: np.ndarray) -> _Encoded:
    codes, lengths = captioner.pad_codes([clips.codes[row] for row in rows])
    audio = torch.from_numpy(clips.audio_embeddings[name][rows]).to(codes.device)
    return _Encoded(captioner, *captioner.encode(codes, lengths, audio))


def _agree(encoded: dict[str, _Encoded], beam: BeamConfig) -> list[AgreedCaption]:
    """Return the caption of each clip of an encoded batch."""
    proposed: list[dict[str, str]] = []  # of each clip, who proposed a text first
    for name, one in encoded.items():
        searched = search(one.captioner, one.states, one.mask, beam)
        proposed = proposed or [{} for _ in searched]
        for clip, candidates in zip(proposed, searched, strict=True):
            for candidate in candidates:
                clip.setdefault(candidate.text, name)
    texts = [text for clip in proposed for text in clip]
    counts = [len(clip) for clip in proposed]
    of_clip = torch.arange(len(proposed)).repeat_interleave(torch.tensor(counts))
    judged = [one.log_likelihood(texts, of_clip.to(one.states.device)).float().cpu() for one in encoded.values()]
    agreed = []
    for clip, scores in zip(proposed, torch.stack(judged).mean(0).split(counts), strict=True):
        best = int(scores.argmax())
        text, captioner = list(clip.items())[best]
        agreed.append(AgreedCaption(text, captioner, float(scores[best])))
    return agreed
