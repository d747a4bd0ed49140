"""Rank clips for captions and captions for clips, of any number, with little of either in memory.

There are several times as many captions as clips: their embeddings lie in files that are mapped into memory, and
similarities are computed in blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap

from models.console import progress_bar
from models.ensemble.retrieval_fusion import RetrievalFusion
from models.metrics.retrieval import NONE, ApOver, retrieval_values_in_blocks
from models.retriever.model import negative_distances

TEXTS_AT_ONCE = 4096
Embeddings = Mapping[str, np.ndarray]  # by retriever, under its metric, [rows, D]


def embed_texts(embed: Callable[[list[str]], Embeddings], texts: Sequence[str], folder: Path) -> Embeddings:
    """Embed texts a part at a time, into files of a folder, and return these mapped into memory.

    Args:
        embed: returns the embeddings of some texts, such as `Ensemble.texts_under_metric`.
        folder: takes 4 bytes for each number: 6 GB for 500,000 captions of three retrievers of 1,024.
    """
    stored: dict[str, np.ndarray] = {}
    with progress_bar(len(texts), "captions", "embedding", shown=len(texts) > TEXTS_AT_ONCE) as bar:
        for at in range(0, len(texts), TEXTS_AT_ONCE):
            part = list(texts[at : at + TEXTS_AT_ONCE])
            for name, rows in embed(part).items():
                if name not in stored:
                    file = folder / f"{len(stored)}.npy"
                    stored[name] = open_memmap(file, "w+", rows.dtype, (len(texts), rows.shape[1]))
                stored[name][at : at + len(part)] = rows
            bar.update(len(part))
    return stored


def ranking_values(
    fusion: RetrievalFusion,
    asked: Embeddings,
    answers: Embeddings,
    right: np.ndarray,
    device: torch.device | str = "cpu",
    ap_over: ApOver = "cutoff",
) -> dict[str, float]:
    """Return the values of Q rows of `asked` as queries over N rows of `answers`, by the fused similarity.

    Args:
        right: [Q, R], the right rows of `answers` (see `retrieval_values_in_blocks`).
        device: computes the distances.
    """
    items = len(next(iter(answers.values())))
    placed = on_device(answers, torch.device(device))
    with progress_bar(len(right), "queries", "ranking", shown=len(right) > TEXTS_AT_ONCE) as bar:

        def block(rows: slice) -> np.ndarray:
            bar.update(rows.stop - rows.start)
            return fusion.join({name: negative_distances(asked[name][rows], placed[name], device) for name in asked})

        return retrieval_values_in_blocks(block, right, items, ap_over=ap_over).corpus


def on_device(embeddings: Embeddings, device: torch.device) -> dict[str, torch.Tensor]:
    """Return embeddings as tensors: on a GPU if they take at most half of its free memory, else where they are.

    All blocks of queries are compared with them: what stays in memory is copied to the GPU for every block.
    """
    tensors = {name: torch.as_tensor(rows) for name, rows in embeddings.items()}
    size = sum(tensor.nbytes for tensor in tensors.values())
    if device.type == "cuda" and size <= torch.cuda.mem_get_info(device)[0] // 2:
        return {name: tensor.to(device) for name, tensor in tensors.items()}
    return tensors


def rows_of(right: Mapping[str, Iterable[str]], names: Sequence[str]) -> dict[str, list[int]]:
    """Return, by query, the places in `names` of those that are right; queries without any are left out."""
    place = {name: row for row, name in enumerate(names)}
    found = {query: [place[name] for name in of_query if name in place] for query, of_query in right.items()}
    return {query: rows for query, rows in found.items() if rows}


def padded(rows: Iterable[Sequence[int]]) -> np.ndarray:
    """Return lists of numbers as one array [Q, R], padded with NONE."""
    lists = list(rows)
    filled = np.full((len(lists), max(map(len, lists))), NONE)
    for to, numbers in zip(filled, lists, strict=True):
        to[: len(numbers)] = numbers
    return filled
