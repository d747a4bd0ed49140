"""Mix pairs of clips and their captions, after PairMix (audio and text) and MixGen (arXiv 2206.08358)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

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
    number = len(captions) // ONE_IN
    order = torch.from_numpy(rng.permutation(len(captions)))
    mixed, partners = order[:number], order[number : 2 * number]
    share = torch.from_numpy(rng.beta(alpha, alpha, (number, 1, 1))).float()
    power = share * _power(log_mel[mixed]) + (1 - share) * _power(log_mel[partners])
    joined = list(captions)
    for row, partner in zip(mixed.tolist(), partners.tolist(), strict=True):
        joined[row] = f"{captions[row].rstrip(' .')} and {captions[partner]}"
    longer = torch.maximum(lengths[mixed], lengths[partners])
    return log_mel.index_copy(0, mixed, 10 * power.log10()), lengths.index_copy(0, mixed, longer), joined


def _power(decibels: Tensor) -> Tensor:
    return 10 ** (decibels / 10)
