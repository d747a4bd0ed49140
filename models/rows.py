"""Take rows of a table, so that the same training gives the same weights."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import embedding


def take_rows(table: Tensor, rows: Tensor) -> Tensor:
    """Return table[rows], whose gradient is added up in a fixed order, for table [N, D] and rows [...]: [..., D].

    The gradient of indexing is not, where several threads of a CPU add to one row (`index_put` with `accumulate`).
    """
    return embedding(rows, table)
