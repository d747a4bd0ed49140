"""Runs of an ablation side by side."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest

from models.console import say
from ray_jobs import ablate
from ray_jobs.ablation.arms import Run, load_ablation
from ray_jobs.ablation.side_by_side import runs_that_fit, wait_for, work_on

from .small_ablation import Jobs, members_made, rows, write


def test_runs_are_worked_on_side_by_side_once_what_they_share_is_trained(jobs: Jobs, tmp_path: Path) -> None:
    """Two seeds, so two first runs meet, and two others that wait for theirs."""
    file = write(tmp_path)
    runs = load_ablation(file).runs
    at_work, together = Counter[str](), list[set[str]]()
    meeting = threading.Barrier(2, timeout=30)

    def work(one: Run) -> None:
        at_work[one.experiment.name] += 1
        meeting.wait()  # nobody goes on alone
        together.append({name for name, number in at_work.items() if number})
        at_work[one.experiment.name] -= 1
        say(f"{one.arm} is done")

    work_on(runs, work, at_once=4)
    assert wait_for(runs) == [set(), set(), {0}, {1}]
    assert {"plain-seed0", "plain-seed1"} in together
    assert {"smoothed-seed0", "smoothed-seed1"} in together
    assert not any({f"plain-seed{n}", f"smoothed-seed{n}"} <= one for one in together for n in (0, 1))


def test_side_by_side_everything_is_made_as_one_after_the_other(
    jobs: Jobs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path)
    ablate.run(file, [], at_once=3)
    names = list(load_ablation(file).runs[0].experiment.members)
    assert sorted(members_made(jobs)) == sorted(
        [f"plain-seed{seed}/{name}" for seed in (0, 1) for name in names]
        + [f"smoothed-seed{seed}/captioner-wide" for seed in (0, 1)]
    )
    assert len(rows(load_ablation(file).root)) == 4
    said = capsys.readouterr().err
    assert "3 runs side by side" in said
    assert "  smoothed-seed0  ablate: fluency is that of plain-seed0" in said


def test_what_a_run_raises_ends_the_others(jobs: Jobs, tmp_path: Path) -> None:
    file = write(tmp_path)
    jobs.killed_at = "plain-seed1/fluency"
    with pytest.raises(KeyboardInterrupt):
        ablate.run(file, [], at_once=2)
    jobs.killed_at = ""
    ablate.run(file, [], at_once=2)
    assert len(rows(load_ablation(file).root)) == 4


def test_as_many_runs_as_the_cluster_trains_at_once(tmp_path: Path) -> None:
    runs = load_ablation(write(tmp_path)).runs
    members = len(runs[0].experiment.members)  # of one CPU each
    assert [runs_that_fit(runs, {"CPU": cpus}) for cpus in (1.0, members, 2.0 * members, 99.0)] == [1, 1, 2, 4]
    assert runs_that_fit(runs, {}) == 1
