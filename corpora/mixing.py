"""Mix two clips as Wu et al. do (arXiv 2309.17352, section 2.3). A mixture is made whenever it is read."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_PATH = re.compile(r"(?P<first>.+) \+ (?P<second>/.+) \((?P<ratio>[+-]\d+\.\d\d) dB, (?P<start>0\.\d{4})\)", re.DOTALL)


class Mixture(NamedTuple):
    """Two clips and how they are mixed, as its path says it: `<first> + <second> (<ratio> dB, <start>)`."""

    first: str  # absolute paths
    second: str
    ratio_db: float  # mean power of the longer clip over that of the shorter
    start: float  # where the shorter clip begins, as a share of the difference of the two lengths, in [0, 1)

    @property
    def path(self) -> str:
        """Return the path of the mixture for `corpora.table`; there is no such file."""
        return f"{self.first} + {self.second} ({self.ratio_db:+.2f} dB, {self.start:.4f})"

    @classmethod
    def of_path(cls, path: str) -> Mixture | None:
        """Return the mixture that a path stands for; None for the path of a file."""
        match = _PATH.fullmatch(path)
        return cls(match["first"], match["second"], float(match["ratio"]), float(match["start"])) if match else None

    def mix(self, first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Add the shorter clip to the longer one, and scale the sum down if it exceeds full scale.

        Args:
            first: [time], of the same sample rate as the other; neither is silent.
            second: [time].

        Returns:
            [time], as long as the longer clip.
        """
        longer, shorter = (first, second) if len(first) >= len(second) else (second, first)
        gain = np.sqrt(_power(longer) / (10 ** (self.ratio_db / 10) * _power(shorter)))
        at = round(self.start * (len(longer) - len(shorter)))
        mixed = longer.copy()
        mixed[at : at + len(shorter)] += np.float32(gain) * shorter
        return mixed / max(np.abs(mixed).max(), np.float32(1))


def _power(samples: npt.NDArray[np.float32]) -> float:
    return float(np.square(samples, dtype=np.float64).mean())
