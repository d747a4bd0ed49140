"""All candidates of some clips: what captioners and token ensembles propose, and how likely captioners find it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor

from ..captioner.model import Captioner
from ..settings import TokenEnsembleConfig
from .candidates import BATCH, Candidate, CaptionSource, Decoding, batches, decode, encode_clips
from .likelihood import log_likelihoods
from .pooling import BEAM, captioner_of, pool, proposals_of
from .token_ensemble import JointCaptioner, JointStates

T = TypeVar("T")
Encoded = dict[str, tuple[Tensor, Tensor]]  # by captioner, states [B, R, width] and attention mask [B, R]


@dataclass(frozen=True)
class ClipInputs:
    """The features of N clips that captioners read.

    Attributes:
        codes: [T_i, Q] of each clip.
        audio_embeddings: by captioner, [N, D].
    """

    codes: Sequence[np.ndarray]
    audio_embeddings: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Proposals:
    """What is proposed for N clips.

    Attributes:
        candidates: of each clip, the sampled ones under `<source>`, and those of the search under `<source>/beam`.
        likelihoods: by captioner, of each clip, the mean log-likelihood of a token by text: of a captioner's own
            captions the decoder_score, of the others teacher-forced.
    """

    candidates: dict[str, list[list[Candidate]]]
    likelihoods: dict[str, list[dict[str, float]]]


def propose(
    captioners: Mapping[str, Captioner],
    clips: ClipInputs,
    decoding: Decoding,
    token_ensembles: Mapping[str, TokenEnsembleConfig] | None = None,
    caption_sources: Collection[str] | None = None,
    scored_by: Collection[str] = (),
) -> Proposals:
    """Propose captions for each of N clips by every captioner and token ensemble, and let captioners score them all.

    A captioner encodes a clip once: for its own captions, for its token ensembles and for the texts that it scores.

    Args:
        captioners: by name.
        token_ensembles: by name, of these captioners.
        caption_sources: the names of those that propose, `<name>/beam` of those that only search, `<name>/samples`
            of those that only sample; all captioners and token ensembles when left out.
        scored_by: the captioners that score all distinct candidates (`pool`).

    Raises:
        ValueError: naming the token ensemble whose members differ in their tokenizers.
    """
    named = [*captioners, *(token_ensembles or {})] if caption_sources is None else caption_sources
    asked = {proposed for name in named for proposed in proposals_of(name)}
    wanted = {captioner_of(name) for name in named}
    sources: dict[str, CaptionSource] = {name: one for name, one in captioners.items() if name in wanted}
    sources |= {n: _joint(n, captioners, one) for n, one in (token_ensembles or {}).items() if n in wanted}
    needed = {*scored_by, *(member for name, one in sources.items() for member in _members(name, one))}
    candidates: dict[str, list[list[Candidate]]] = {
        key: [[] for _ in clips.codes] for name in sources for key in (name, name + BEAM)
    }
    likelihoods: dict[str, list[dict[str, float]]] = {name: [{} for _ in clips.codes] for name in scored_by}
    for rows in batches(clips.codes, BATCH):
        encoded = {
            name: encode_clips(captioners[name], clips.codes, clips.audio_embeddings[name], rows)
            for name in captioners
            if name in needed
        }
        found = _candidates(sources, encoded, decoding, asked)
        _put(candidates, rows, found)
        _put(likelihoods, rows, {name: _scores(name, captioners[name], encoded[name], found) for name in scored_by})
    return Proposals(candidates, likelihoods)


def _candidates(
    sources: Mapping[str, CaptionSource], encoded: Encoded, decoding: Decoding, asked: Collection[str]
) -> dict[str, list[list[Candidate]]]:
    """Return what is asked of each source for B encoded clips: samples under its name, what its search finds."""
    found: dict[str, list[list[Candidate]]] = {}
    for name, source in sources.items():
        states, masks = zip(*(encoded[member] for member in _members(name, source)), strict=True)
        joint = JointStates(list(states), list(masks)) if isinstance(source, JointCaptioner) else states[0]
        proposed = decode(source, joint, masks[0], decoding, name in asked, name + BEAM in asked)
        found |= {name: proposed.sampled, name + BEAM: proposed.searched}
    return found


def _scores(
    name: str, captioner: Captioner, encoded: tuple[Tensor, Tensor], found: Mapping[str, list[list[Candidate]]]
) -> list[dict[str, float]]:
    """Return a captioner's log-likelihoods of all distinct candidates of B clips, by text.

    Those of its own were found as it drew them; only the others' are computed.
    """
    pooled = [pool(dict(zip(found, of_clip, strict=True))) for of_clip in zip(*found.values(), strict=True)]
    texts = [[one.text for _, one in of_clip] for of_clip in pooled]
    nothing: list[list[Candidate]] = [[] for _ in texts]
    drawn = zip(found.get(name, nothing), found.get(name + BEAM, nothing), strict=True)
    own = [{one.text: one.decoder_score for one in [*sampled, *searched]} for sampled, searched in drawn]
    others = [[text for text in said if text not in known] for said, known in zip(texts, own, strict=True)]
    computed = log_likelihoods(captioner, *encoded, others)
    scores = [{**known, **new} for known, new in zip(own, computed, strict=True)]
    return [{text: score[text] for text in said} for said, score in zip(texts, scores, strict=True)]


def _members(name: str, source: CaptionSource) -> list[str]:
    """Return the captioners whose encoder states a caption source reads."""
    return list(source.members) if isinstance(source, JointCaptioner) else [name]


def _joint(name: str, captioners: Mapping[str, Captioner], config: TokenEnsembleConfig) -> JointCaptioner:
    try:
        return JointCaptioner({member: captioners[member] for member in config.members}, config.average)
    except ValueError as error:
        raise ValueError(f"token_ensembles.{name}: {error}") from error


def _put(into: Mapping[str, list[T]], rows: np.ndarray, found: Mapping[str, Sequence[T]]) -> None:
    """Put what was found for the clips of a batch into their rows."""
    for name, of_clips in found.items():
        for row, one in zip(rows, of_clips, strict=True):
            into[name][row] = one
