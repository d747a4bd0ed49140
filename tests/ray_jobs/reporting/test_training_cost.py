"""What a training took: hours of all its devices, and the energy of those whose power is known."""

from pathlib import Path

import pytest

from ray_jobs.experiment.loading import load_experiment
from ray_jobs.reporting.training_cost import CORE_WATTS, training_costs
from ray_jobs.results.member import MemberMetrics
from ray_jobs.run.directory import RunDirectory

from ..test_report import SMOKE


@pytest.mark.parametrize(
    ("resources", "device", "devices", "watts"),
    [
        ({"workers": 1, "cpus_per_worker": 2}, "cpu", 2, CORE_WATTS),
        ({"workers": 4, "gpus_per_worker": 1}, "NVIDIA H100 80GB HBM3", 4, 700),
        ({"workers": 2, "gpus_per_worker": 0.5}, "NVIDIA H100 PCIe", 1, 350),
        ({"workers": [1, 2], "gpus_per_worker": 1}, "Unheard-of GPU", 2, None),
        ({"workers": 1}, None, 1, None),
    ],
)
def test_hours_count_all_devices(
    resources: dict[str, object], device: str | None, devices: float, watts: float | None, tmp_path: Path
) -> None:
    overrides = [f"members.*.resources.{key}={value}" for key, value in resources.items()]
    batch = ["members.*.training.batch_size=8"]
    directory = RunDirectory(load_experiment(SMOKE, [f"storage_path={tmp_path}", *batch, *overrides]))
    for number, (name, member) in enumerate(directory.experiment.members.items()):
        MemberMetrics(
            member=name, kind=member.kind, split="validation", chosen_by="f1", epochs=min(number, 1), best={"f1": 1.0},
            kept_epochs=[1], parameters=1, seconds=1800.0 * number, seed=0, commit="", device=device,
        ).write(directory.member(name))  # fmt: skip
    _, *trained = directory.experiment.members
    costs = training_costs(directory.experiment, directory)
    assert [cost.member for cost in costs] == trained
    assert costs[0].devices == devices
    assert costs[0].device_hours == pytest.approx(devices / 2)
    assert costs[1].watt_hours == (None if watts is None else pytest.approx(devices * watts))
