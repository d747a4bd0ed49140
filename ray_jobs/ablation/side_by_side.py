"""Work on the runs of an ablation side by side, each after the earlier ones that train what it takes over from them."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue

from models.console import speaking_of
from ray_jobs.ablation.arms import Run
from ray_jobs.run.directory import RunDirectory
from ray_jobs.training.plan import requests

Work = Callable[[Run], None]


def runs_that_fit(runs: Sequence[Run], cluster: Mapping[str, float]) -> int:
    """Return how many runs a cluster holds while each trains all of its members at the same time; at least one."""
    most: dict[str, float] = {}
    for one in runs:
        asked: dict[str, float] = {}
        for member in one.experiment.members.values():
            for key, amount in requests(member).items():
                asked[key] = asked.get(key, 0.0) + amount
        most = {key: max(most.get(key, 0.0), asked.get(key, 0.0)) for key in {*most, *asked}}
    fit = [cluster.get(key, 0.0) / amount for key, amount in most.items() if amount]
    return max(1, min(len(runs), math.floor(min(fit, default=1.0) + 1e-6)))


def wait_for(runs: Sequence[Run]) -> list[set[int]]:
    """Return, for each run, the numbers of the earlier runs that train a member with it, so that it is trained once."""
    directories = [RunDirectory(one.experiment) for one in runs]
    trained = [{(name, one.shared_inputs(name)) for name in one.experiment.members} for one in directories]
    return [{earlier for earlier in range(at) if trained[earlier] & trained[at]} for at in range(len(runs))]


def work_on(runs: Sequence[Run], work: Work, at_once: int) -> None:
    """Call `work` for each run, several at a time, and raise what it raises first; others are then abandoned.

    Threads are enough: the work itself is done by Ray, which gives its processes room as there is some. They are
    daemons, so that a command that is interrupted ends at once.
    """
    if at_once == 1:
        for one in runs:
            work(one)
        return
    before, ended = wait_for(runs), SimpleQueue[tuple[int, BaseException | None]]()
    waiting, running = list(range(len(runs))), set[int]()

    def start(at: int) -> None:
        try:
            with speaking_of(runs[at].experiment.name):
                work(runs[at])
        except BaseException as error:
            ended.put((at, error))
        else:
            ended.put((at, None))

    while waiting or running:
        for at in list(waiting):
            if len(running) < at_once and not before[at] & {*waiting, *running}:
                waiting.remove(at)
                running.add(at)
                threading.Thread(target=start, args=(at,), daemon=True, name=runs[at].experiment.name).start()
        at, error = ended.get()
        running.remove(at)
        if error:
            raise error
