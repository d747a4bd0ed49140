"""Learn that wrong captions of a clip are wrong: its own caption against changed versions of it.

After the hard negatives of CompA-CLAP (Ghosh et al., ICLR 2024, arXiv 2310.08753). A clip i with the caption y_i and
wrong captions w_i1 ... w_ik adds

    -log( exp l(i, y_i) / (exp l(i, y_i) + sum_m exp l(i, w_im)) )

to the loss of the batch, averaged over all of its clips; one without wrong captions adds 0. The logits l are those of
the loss that it stands beside: -cost / epsilon for m-LTM, so that this is a row of the transport plan with that
caption and its wrong versions alone, which get no mass; scale * s for NT-Xent. With the triplet loss the term is its
own, the hinge sum_m max(0, margin + s(i, w_im) - s(i, y_i)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..rows import take_rows


@dataclass(frozen=True)
class WrongTexts:
    """The embeddings of M wrong captions, and which of B clips each belongs to."""

    embeddings: Tensor  # [M, D]
    clip: Tensor  # [M], rows of the batch
    place: Tensor  # [M], number among the wrong captions of its clip
    most: int  # wrong captions of one clip

    @classmethod
    def of_clips(cls, texts: Sequence[Sequence[str]], embeddings: Tensor) -> WrongTexts:
        """Return the wrong captions `texts` of B clips, whose embeddings [M, D] stand one clip after the other."""
        pairs = [(clip, place) for clip, of_clip in enumerate(texts) for place in range(len(of_clip))]
        clip, place = torch.tensor(pairs, device=embeddings.device).T
        return cls(embeddings, clip, place, max(map(len, texts)))

    def distances(self, audio: Tensor) -> Tensor:
        """Return the distance [M] of each wrong caption from its clip, given audio [B, D] under the same metric."""
        return row_distance(take_rows(audio, self.clip), self.embeddings)

    def spread(self, values: Tensor, clips: int, absent: float) -> Tensor:
        """Lay values [M] out as [B, `most`], `absent` where a clip has fewer."""
        laid_out = values.new_full((clips, self.most), absent)
        return laid_out.index_put((self.clip, self.place), values)


def row_distance(x: Tensor, y: Tensor) -> Tensor:
    """Return the Euclidean distance [N] of each row of x [N, D] from that of y [N, D], from 1e-4 on."""
    return (x - y).square().sum(-1).clamp_min(1e-8).sqrt()


def cross_entropy_of_own(right: Tensor, wrong: Tensor) -> Tensor:
    """Compute the mean over clips of -log softmax of the right caption among itself and the wrong ones.

    Args:
        right: logits [B].
        wrong: logits [B, K], -inf where a clip has fewer than K wrong captions.
    """
    return -torch.cat([right[:, None], wrong], 1).log_softmax(1)[:, 0].mean()


def hinge_of_own(right: Tensor, wrong: Tensor, margin: float) -> Tensor:
    """Compute the mean over clips of sum_m max(0, margin + wrong_im - right_i); arguments as `cross_entropy_of_own`."""
    return (margin + wrong - right[:, None]).clamp_min(0).sum(1).mean()
