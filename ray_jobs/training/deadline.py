"""Say when a training must end, to its workers."""

from __future__ import annotations

import time
from dataclasses import dataclass

LOOK_S = 10.0  # seconds between two looks at the clock, for which all workers of a training meet


@dataclass
class Deadline:
    """The end of a training's share of the time limit."""

    limit_s: float  # of the run, for the record
    ends: float  # seconds since 1970

    def left(self) -> float:
        """Return the seconds that are left; negative after the end."""
        return self.ends - time.time()

    def steps_to_next_look(self, seconds_per_step: float) -> int:
        """Return the number of steps after which to look at the clock again; 0: the time is up."""
        left = self.left()
        return max(1, int(min(LOOK_S, left) / max(seconds_per_step, 1e-6))) if left > 0 else 0
