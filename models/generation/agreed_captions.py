"""Let several captioners agree on one caption a clip: each proposes by beam search, and all of them judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ..captioner.model import Captioner
from ..settings import BeamConfig, SamplingConfig
from .candidates import Decoding
from .pooling import BEAM, captioner_of, pool, proposers
from .proposals import ClipInputs, propose


@dataclass(frozen=True)
class AgreedCaption:
    """The caption of a clip on which captioners agree."""

    text: str
    captioner: str  # the first that proposed it
    log_likelihood: float  # of a token, the mean over all captioners


@torch.inference_mode()
def agreed_captions(captioners: Mapping[str, Captioner], clips: ClipInputs, beam: BeamConfig) -> list[AgreedCaption]:
    """Return for each of N clips the proposed caption of the highest mean log-likelihood over all captioners.

    Every clip is encoded once by every captioner. Of equals, the caption of the captioner that is named first is taken.

    Args:
        captioners: by name, in evaluation mode.
        clips: their codes, and for each captioner the audio embeddings that it reads.
        beam: the search of each captioner.
    """
    decoding = Decoding(SamplingConfig(), beam, seed=0)  # nothing is sampled
    searches = [name + BEAM for name in captioners]
    proposals = propose(captioners, clips, decoding, caption_sources=searches, scored_by=list(captioners))
    agreed = []
    for clip in range(len(clips.codes)):
        said = pool({name: proposals.candidates[name][clip] for name in searches})
        scores = [np.mean([of[clip][one.text] for of in proposals.likelihoods.values()]) for _, one in said]
        names, best = said[int(np.argmax(scores))]
        agreed.append(AgreedCaption(best.text, captioner_of(proposers(names)[0]), float(max(scores))))
    return agreed
