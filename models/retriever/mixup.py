"""Mix pairs of clips and their captions, after PairMix (audio and text) and MixGen (arXiv 2206.08358)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ..encoders.log_mel import FLOOR_DB

FULL_SCALE = 32_768  # of 16-bit samples
ONE_IN = 4  # of a batch's clips is mixed: most captions stay as people write them
IN_SEQUENCE = ("followed by", "and then", "then")


def mix_pairs(
    log_mel: Tensor,
    lengths: Tensor,
    captions: list[str],
    alpha: float,
    rng: np.random.Generator,
    joins: str = "together",
) -> tuple[Tensor, Tensor, list[str]]:
    """Mix a quarter of a batch's clips with one other clip each, and join the two captions.

    Sounding together, powers are mixed, not decibels: the result is that of two independent sounds, the padding of the
    shorter one adds nothing, and both captions stay true. In sequence, the other clip is appended, and the batch grows
    as long as its longest pair. A loss shared between the targets of two captions would not work: under the m-LTM loss
    each clip has one caption.

    Args:
        log_mel: [B, frames, mels] in decibels.
        lengths: [B] valid frames.
        captions: B texts.
        alpha: parameter of Beta(alpha, alpha), from which a clip's share of the power is drawn; 0 changes nothing.
        joins: `together`, `sequence`, or `either`, drawn for each pair.

    Returns:
        log_mel, lengths and captions of the mixed batch.
    """
    if not alpha:
        return log_mel, lengths, captions
    drawn, partners = _draw(len(captions), rng)
    mixed = torch.from_numpy(drawn)
    share = torch.from_numpy(rng.beta(alpha, alpha, (len(mixed), 1, 1))).float()
    power = share * _power(log_mel[mixed]) + (1 - share) * _power(log_mel[torch.from_numpy(partners)])
    longer = torch.maximum(lengths[mixed], lengths[torch.from_numpy(partners)])
    new, new_lengths = log_mel.index_copy(0, mixed, 10 * power.log10()), lengths.index_copy(0, mixed, longer)
    appended = _in_sequence(len(drawn), joins, rng)
    for row, partner, after in zip(drawn, partners, appended, strict=True):
        if after:
            pair = torch.cat([log_mel[row, : lengths[row]], log_mel[partner, : lengths[partner]]])
            new, new_lengths[row] = _with_row(new, row, pair), len(pair)
    return new, new_lengths, _joined(captions, drawn, partners, appended, rng)


def mix_waveforms(
    waveforms: list[np.ndarray], captions: list[str], alpha: float, rng: np.random.Generator, joins: str = "together"
) -> tuple[list[np.ndarray], list[str]]:
    """Mix a batch's clips as `mix_pairs` does, given their waveforms [samples_i], 16-bit integers.

    Two independent sounds are mixed at a share of the power where their samples are scaled by its root.
    """
    if not alpha:
        return waveforms, captions
    drawn, partners = _draw(len(captions), rng)
    shares, appended, found = rng.beta(alpha, alpha, len(drawn)), _in_sequence(len(drawn), joins, rng), list(waveforms)
    for row, partner, share, after in zip(drawn, partners, shares, appended, strict=True):
        one, other = waveforms[row], waveforms[partner]
        if after:
            sound = np.concatenate([one, other]).astype(np.float32)
        else:
            sound = np.zeros(max(len(one), len(other)), np.float32)
            sound[: len(one)] += np.sqrt(share) * one
            sound[: len(other)] += np.sqrt(1 - share) * other
        found[row] = sound / FULL_SCALE
    return found, _joined(captions, drawn, partners, appended, rng)


def _draw(clips: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw the rows of a batch that are mixed, and that of each one's partner."""
    number, order = clips // ONE_IN, rng.permutation(clips)
    return order[:number], order[number : 2 * number]


def _joined(
    captions: list[str], mixed: np.ndarray, partners: np.ndarray, appended: list[bool], rng: np.random.Generator
) -> list[str]:
    """Join the captions of mixed pairs, by a word for what follows where the second clip was appended."""
    joined = list(captions)
    for row, partner, after in zip(mixed, partners, appended, strict=True):
        link = IN_SEQUENCE[int(rng.integers(len(IN_SEQUENCE)))] if after else "and"
        joined[row] = f"{captions[row].rstrip(' .')} {link} {captions[partner]}"
    return joined


def _in_sequence(number: int, joins: str, rng: np.random.Generator) -> list[bool]:
    """Return which pairs sound one after the other."""
    if joins == "either":
        drawn: list[bool] = (rng.random(number) < 0.5).tolist()
        return drawn
    return [joins == "sequence"] * number


def _with_row(batch: Tensor, row: int, frames: Tensor) -> Tensor:
    """Return the batch [B, T, mels] with one row replaced by frames [n, mels], lengthened by silence where it must."""
    longer = pad(batch, (0, 0, 0, max(0, len(frames) - batch.shape[1])), value=FLOOR_DB)
    longer[row] = FLOOR_DB
    longer[row, : len(frames)] = frames
    return longer


def _power(decibels: Tensor) -> Tensor:
    return 10 ** (decibels / 10)
