"""Train and judge a small DAC: reconstruction loss, use of the codebooks, and what its codes tell about a clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from audiotools import AudioSignal
from dac.nn.loss import MelSpectrogramLoss
from dac.nn.quantize import ResidualVectorQuantize
from torch import Tensor, nn


class ReconstructionLoss(nn.Module):
    """L1 distance of log10 mel spectrograms at four window lengths: DAC's own loss (arXiv 2306.06546, section 3.4).

    The lengths in samples suit 16 kHz. The floor of 1e-3 is below the noise of the corpora; with DAC's 1e-5, digital
    silence would outweigh everything audible.
    """

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        self.mel = MelSpectrogramLoss(
            n_mels=[10, 20, 40, 80],
            window_lengths=[128, 256, 512, 1024],
            mel_fmin=[0.0] * 4,
            mel_fmax=[None] * 4,
            clamp_eps=1e-3,
            mag_weight=0.0,
            pow=1.0,
        )

    def forward(self, estimate: Tensor, target: Tensor) -> Tensor:
        """Return the loss of an estimate against a target, both [B, 1, samples].

        A longer target is cut off, because odd strides shorten what DAC decodes.
        """
        target = target[..., : estimate.shape[-1]]
        loss: Tensor = self.mel(AudioSignal(estimate, self.sample_rate), AudioSignal(target, self.sample_rate))
        return loss


def perplexity(counts: Tensor) -> float:
    """Return the exponential of the entropy of a codebook's use, from 1 (collapsed) to its size (all used alike).

    Args:
        counts: [size], how often each entry is used.
    """
    shares = counts.double() / counts.sum()
    return float(torch.exp(-torch.special.xlogy(shares, shares).sum()))


def count_codes(codes: Tensor, size: int) -> Tensor:
    """Count how often each entry occurs in codes [B, Q, T]: [Q, size]."""
    return torch.stack([torch.bincount(book.reshape(-1), minlength=size) for book in codes.transpose(0, 1)])


def project_only(quantizer: ResidualVectorQuantize, latents: Tensor, books: int) -> Tensor:
    """Project `latents` [B, D, T] by the first `books` stages without quantizing them: [B, D, T].

    This is as if the codebooks held every vector. Training starts so, until encoder and projections have found their
    scale, which codebooks could not follow.
    """
    total = torch.zeros_like(latents)
    for stage in quantizer.quantizers[:books]:
        total = total + stage.out_proj(stage.in_proj(latents - total))
    return total


@torch.no_grad()
def seed_codebooks(
    quantizer: ResidualVectorQuantize, latents: Tensor, generator: torch.Generator, rounds: int = 15
) -> None:
    """Move the codebooks to where the encoder's outputs `latents` [B, D, T] lie, one residual stage after the other.

    DAC moves entries by gradient, in steps the size of the learning rate. In a short training the encoder's outputs
    move much further: entries cannot follow, a few take over the vectors of the others, and those get no gradient any
    more (measured on experiments/codec.yaml: perplexities fell from 80 to 20 in two epochs, and rose to 190 by seeding
    again with the same encoder). Seeding is k-means by cosine, which is also how DAC looks codes up.
    """
    residual = latents
    for stage in quantizer.quantizers:
        points = stage.in_proj(residual).transpose(1, 2).flatten(0, 1)  # [B * T, codebook_dim]
        picks = torch.randperm(len(points), generator=generator)[: stage.codebook_size]
        centroids = points[picks].clone()
        for _ in range(rounds):
            nearest = _cosine(points, centroids).argmax(1)
            counts = torch.bincount(nearest, minlength=len(centroids))
            sums = torch.zeros_like(centroids).index_add_(0, nearest, points)
            centroids[counts > 0] = sums[counts > 0] / counts[counts > 0, None]
        stage.codebook.weight[: len(centroids)] = centroids
        residual = residual - stage(residual)[0]


def bag_of_codes(codes: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Return the square roots of the shares of all entries of all codebooks, [clips, Q * size].

    Args:
        codes: [T_i, Q] of each clip.
        size: entries of a codebook.
    """
    bags = [[np.bincount(book, minlength=size) / len(clip) for book in clip.T] for clip in codes]
    shares: np.ndarray = np.asarray(bags).reshape(len(codes), -1)
    roots: np.ndarray = np.sqrt(shares)
    return roots


def probe_accuracy(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray
) -> dict[str, float]:
    """Return the accuracy of a nearest centroid and a logistic regression, and the share of the commonest label.

    Args:
        train, test: features [clips, D].
        train_labels, test_labels: [clips].
    """
    classes = np.unique(train_labels)
    centroids = np.stack([train[train_labels == label].mean(0) for label in classes])
    distances = ((test[:, None] - centroids) ** 2).sum(-1)
    by_centroid = classes[distances.argmin(1)]
    by_regression = classes[_logistic_regression(train, np.searchsorted(classes, train_labels), test)]
    return {
        "nearest_centroid": float((by_centroid == test_labels).mean()),
        "logistic_regression": float((by_regression == test_labels).mean()),
        "majority": float((test_labels[:, None] == classes).mean(0).max()),
    }


def _logistic_regression(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Fit to train [N, D] with labels 0 .. C - 1, and predict the labels of test [M, D]."""
    inputs, targets = torch.from_numpy(train).float(), torch.from_numpy(labels)
    weight = torch.zeros(train.shape[1], int(labels.max()) + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(inputs @ weight, targets) + 1e-4 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    predicted: Tensor = (torch.from_numpy(test).float() @ weight).argmax(1)
    return predicted.numpy()


def _cosine(points: Tensor, centroids: Tensor) -> Tensor:
    normalize = nn.functional.normalize
    return normalize(points) @ normalize(centroids).T
