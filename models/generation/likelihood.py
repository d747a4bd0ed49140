"""How likely a captioner finds texts that others may have written, from encoder states that are there already.

The texts of a clip are rows of one teacher-forced pass of the decoder; keys and values of the clip are computed once
for all of them (`shared_cross_attention`). Logits, which are by far the largest, are held for some tokens at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..captioner.distillation import IGNORED
from ..captioner.model import Captioner
from ..captioner.shared_cross_attention import shared_states_cache

TEXTS_AT_ONCE = 512  # rows of the decoder, padding included
LOGITS_AT_ONCE = 2**25  # values: 128 MiB


@torch.inference_mode()
def log_likelihoods(
    captioner: Captioner, states: Tensor, mask: Tensor, texts: Sequence[Sequence[str]]
) -> list[dict[str, float]]:
    """Return the mean log-likelihood of a token of each clip's texts, EOS counted and BOS not, for each of B clips.

    It is `Captioner.log_likelihood` as far as rounding goes, whatever other texts and clips are scored with it.

    Args:
        states: [B, R, width] of the encoder.
        mask: [B, R] of valid states.
        texts: distinct ones of each of the B clips.
    """
    found: list[dict[str, float]] = [{} for _ in texts]
    for clips, rows in _chunks(texts):
        chosen = torch.tensor(clips, device=states.device)
        some = [list(texts[clip][rows]) for clip in clips]
        for clip, own, scores in zip(
            clips, some, _of_chunk(captioner, states[chosen], mask[chosen], some), strict=True
        ):
            found[clip] |= dict(zip(own, scores, strict=False))
    return found


def _chunks(texts: Sequence[Sequence[str]]) -> Iterator[tuple[list[int], slice]]:
    """Divide texts into batches of clips with about equally many; yield their numbers, and which texts of each.

    A clip of more than TEXTS_AT_ONCE is alone, in several batches.
    """
    order = [int(clip) for clip in np.argsort([-len(own) for own in texts], kind="stable") if texts[int(clip)]]
    while order:
        most = len(texts[order[0]])
        number = max(TEXTS_AT_ONCE // most, 1)
        yield from ((order[:number], slice(at, at + TEXTS_AT_ONCE)) for at in range(0, most, TEXTS_AT_ONCE))
        order = order[number:]


def _of_chunk(captioner: Captioner, states: Tensor, mask: Tensor, texts: list[list[str]]) -> list[list[float]]:
    """Return the scores of some clips' texts, as many of each clip as of the one that has most."""
    each = max(map(len, texts))
    labels = captioner.labels([text for own in texts for text in [*own, *[""] * (each - len(own))]])
    hidden = _decode(captioner, states, mask, labels, each)
    counted = labels != IGNORED
    counted[:, 0] = False  # BOS is given
    summed = torch.zeros(counted.shape, device=labels.device)
    summed[counted] = _log_probabilities(captioner, hidden[counted], labels[counted])
    means: list[list[float]] = (summed.sum(1) / counted.sum(1).clamp_min(1)).view(-1, each).tolist()
    return means


def _decode(captioner: Captioner, states: Tensor, mask: Tensor, labels: Tensor, each: int) -> Tensor:
    """Return the decoder's last states [rows, S, width] for labels [rows, S], `each` rows a clip."""
    hidden: Tensor = captioner.bart.model.decoder(
        input_ids=captioner.decoder_input(labels),
        encoder_hidden_states=states[:, :, :1].repeat_interleave(each, 0),  # only its shape counts: the cache holds it
        encoder_attention_mask=mask.repeat_interleave(each, 0),
        past_key_values=shared_states_cache(captioner.bart, states),
        use_cache=True,
    ).last_hidden_state
    return hidden


def _log_probabilities(captioner: Captioner, hidden: Tensor, tokens: Tensor) -> Tensor:
    """Return the log-probability [N] of each token [N] after the decoder's state [N, width] before it."""
    bart = captioner.bart
    size = max(LOGITS_AT_ONCE // bart.config.vocab_size, 1)
    parts = []
    for some, own in zip(hidden.split(size), tokens.split(size), strict=True):
        logits = bart.lm_head(some) + bart.final_logits_bias
        parts.append(-cross_entropy(logits.float(), own, reduction="none"))
    return torch.cat(parts)
