"""Say when a training must end, to its workers."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

LOOK_S = 10.0  # seconds between two looks at the clock, for which all workers of a training meet


@dataclass
class Deadline:
    """The end of a training's share of the time limit, which its workers begin to use when they are there."""

    limit_s: float  # of the run, for the record
    share_s: float
    latest: float  # seconds since 1970, however late the workers are there
    ends: float = field(default=math.inf, init=False)  # seconds since 1970

    def begin(self) -> None:
        """Let the share begin now."""
        self.ends = min(time.time() + self.share_s, self.latest)

    def left(self) -> float:
        """Return the seconds that are left; negative after the end."""
        return self.ends - time.time()

    def steps_to_next_look(self, seconds_per_step: float) -> int:
        """Return the number of steps after which to look at the clock again; 0: the time is up."""
        left = self.left()
        return max(1, int(min(LOOK_S, left) / max(seconds_per_step, 1e-6))) if left > 0 else 0
