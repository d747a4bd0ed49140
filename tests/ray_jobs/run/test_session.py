"""What no node could start is refused before Ray waits for it; Ray's warnings are no results."""

from pathlib import Path

import pytest
import ray
from ray._private import worker

from ray_jobs import prepare, search
from ray_jobs.experiment.config import ConfigError
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.run.session import _say_warnings, check_room

from ..conftest import ROOT

SMOKE = ROOT / "experiments" / "smoke.yaml"


@pytest.fixture(autouse=True)
def nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two live nodes with half a GPU each, and a dead one with a whole one."""
    alive = [{"Alive": True, "Resources": {"CPU": 2.0, "GPU": 0.5}}] * 2
    monkeypatch.setattr(ray, "nodes", lambda: [*alive, {"Alive": False, "Resources": {"CPU": 8.0, "GPU": 1.0}}])
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0, "GPU": 1.0})


def test_one_node_must_have_all_of_it() -> None:
    check_room("search", {"CPU": 2, "GPU": 0.5})
    with pytest.raises(ConfigError, match=r"search asks for 1 CPU, 1 GPU on one node, .* at most 2 CPU, 0.5 GPU"):
        check_room("search", {"CPU": 1, "GPU": 1})
    check_room("search", {"CPU": 1, "GPU": 1}, autoscaling=True)


def test_what_the_cluster_warns_of_is_no_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(worker, "print_to_stdstream", worker.print_to_stdstream)
    _say_warnings()
    for line in ("WARNING: 8 PYTHON worker processes have been started on node: 1", "WARNING: the disk is 95 % full"):
        worker.print_to_stdstream({"lines": [line], "pid": "raylet", "is_err": False}, ignore_prefix=False)
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.split("ray: ")[1:] == ["WARNING: the disk is 95 % full\n"]


def test_search_and_prepare_refuse_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "require", lambda *_: None)  # as if all members were trained
    with pytest.raises(ConfigError, match="gpus_per_trial"):
        search.run(load_experiment(SMOKE, ["search.gpus_per_trial=1", f"storage_path={tmp_path}"]))
    with pytest.raises(ConfigError, match=r"prepare \(cpus, gpus\) asks for 1 CPU, 1 GPU"):
        prepare.run(load_experiment(SMOKE, ["prepare.gpus=1", f"storage_path={tmp_path}"]))
