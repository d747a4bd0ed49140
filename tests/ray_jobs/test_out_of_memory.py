"""Memory that really runs out: workers whose address space is limited."""

import json
import resource
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml

from .conftest import RayCluster
from .small_training import MEMBER, write_experiment
from .spot_nodes import PATIENCE_S, SPOT, spot_nodes, train

ROOM = 1 << 30  # beyond what a small training takes; the large one takes three times as much


def make_large(experiment: Path) -> None:
    """Give the member a feed-forward layer of a million."""
    raw = yaml.safe_load(experiment.read_text(encoding="utf-8"))
    raw["members"][MEMBER]["text_encoder"]["sizes"]["intermediate_size"] = 1_000_000
    experiment.write_text(yaml.safe_dump(raw), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_does_not_fit_is_told_once_and_with_more_memory_the_training_is_done(
    cluster: RayCluster, tmp_path: Path
) -> None:
    asked = {"custom": SPOT, "retries": 2}
    small, large = (write_experiment(tmp_path / name, 2, asked) for name in ("small", "large"))
    make_large(large)
    most = 0
    with spot_nodes(cluster, 1) as nodes:
        driver, end = train(cluster, small), time.monotonic() + PATIENCE_S
        while driver.poll() is None:
            assert time.monotonic() < end
            for _, worker in nodes.workers():
                with suppress(psutil.Error):  # it has ended
                    most = max(most, worker.memory_info().vms)
            time.sleep(0.05)
        assert driver.wait(PATIENCE_S) == 0, small.with_suffix(".log").read_text()[-3000:]
    with spot_nodes(cluster, 1, limits={resource.RLIMIT_AS: most + ROOM}):
        assert train(cluster, large).wait(PATIENCE_S) == 1
    said = large.with_suffix(".log").read_text()
    assert f"MemberOutOfMemoryError: {MEMBER}: " in said, said[-3000:]
    assert "Traceback" not in said
    events = (tmp_path / "large" / "small" / "members" / MEMBER / "log.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line)["event"] for line in events.splitlines()].count("started") <= 1
    with spot_nodes(cluster, 1):
        assert train(cluster, large).wait(2 * PATIENCE_S) == 0, large.with_suffix(".log").read_text()[-3000:]
