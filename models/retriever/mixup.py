"""Mix pairs of clips and their captions, after PairMix (audio and text) and MixGen (arXiv 2206.08358)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

FULL_SCALE = 32_768  # of 16-bit samples
ONE_IN = 4  # of a batch's clips is mixed: most captions stay as people write them


def mix_pairs(
    log_mel: Tensor, lengths: Tensor, captions: list[str], alpha: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor, list[str]]:
    """Mix a quarter of a batch's clips with one other clip each, and join the two captions.

    Powers are mixed, not decibels: the result is that of two independent sounds together, the padding of the shorter
    one adds nothing, and both captions stay true. A loss shared between the targets of two captions would not work:
    under the m-LTM loss each clip has one caption.

    Args:
        log_mel: [B, frames, mels] in decibels.
        lengths: [B] valid frames.
        captions: B texts.
        alpha: parameter of Beta(alpha, alpha), from which a clip's share of the power is drawn; 0 changes nothing.

    Returns:
        log_mel, lengths and captions of the mixed batch.
    """
    if not alpha:
        return log_mel, lengths, captions
    mixed, partners = map(torch.from_numpy, _draw(len(captions), rng))
    share = torch.from_numpy(rng.beta(alpha, alpha, (len(mixed), 1, 1))).float()
    power = share * _power(log_mel[mixed]) + (1 - share) * _power(log_mel[partners])
    joined = _joined(captions, mixed.tolist(), partners.tolist())
    longer = torch.maximum(lengths[mixed], lengths[partners])
    return log_mel.index_copy(0, mixed, 10 * power.log10()), lengths.index_copy(0, mixed, longer), joined


def mix_waveforms(
    waveforms: list[np.ndarray], captions: list[str], alpha: float, rng: np.random.Generator
) -> tuple[list[np.ndarray], list[str]]:
    """Mix a batch's clips as `mix_pairs` does, given their waveforms [samples_i], 16-bit integers.

    Two independent sounds are mixed at a share of the power where their samples are scaled by its root.
    """
    if not alpha:
        return waveforms, captions
    mixed, partners = _draw(len(captions), rng)
    found = list(waveforms)
    for row, partner, share in zip(mixed, partners, rng.beta(alpha, alpha, len(mixed)), strict=True):
        one, other = waveforms[row], waveforms[partner]
        sound = np.zeros(max(len(one), len(other)), np.float32)
        sound[: len(one)] += np.sqrt(share) * one
        sound[: len(other)] += np.sqrt(1 - share) * other
        found[row] = sound / FULL_SCALE
    return found, _joined(captions, mixed.tolist(), partners.tolist())


def _draw(clips: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw the rows of a batch that are mixed, and that of each one's partner."""
    number, order = clips // ONE_IN, rng.permutation(clips)
    return order[:number], order[number : 2 * number]


def _joined(captions: list[str], mixed: list[int], partners: list[int]) -> list[str]:
    joined = list(captions)
    for row, partner in zip(mixed, partners, strict=True):
        joined[row] = f"{captions[row].rstrip(' .')} and {captions[partner]}"
    return joined


def _power(decibels: Tensor) -> Tensor:
    return 10 ** (decibels / 10)
