"""Who is trained when."""

from ray_jobs.config import Experiment, load_experiment
from ray_jobs.plan import by_critical_path, fits, take, waves

from .conftest import ROOT


def smoke(*overrides: str) -> Experiment:
    return load_experiment(ROOT / "experiments" / "smoke.yaml", list(overrides))


def test_what_most_waits_for_goes_first() -> None:
    experiment = smoke("members.captioner-deep.training.epochs=20", "members.fluency.training.epochs=6")
    order = by_critical_path(experiment, set(experiment.members))
    assert order == [
        "retriever-bert",  # 2 epochs and the 20 of captioner-deep
        "captioner-deep",
        "fluency",
        "retriever-bge",  # 2 and the 2 of captioner-wide
        "retriever-roberta",
        "captioner-wide",
    ]


def test_members_start_whole_or_not_at_all() -> None:
    experiment = smoke()
    wide = experiment.members["retriever-roberta"]  # two workers of half a CPU
    free = {"CPU": 0.9, "GPU": 0.0}
    assert not fits(wide, free)
    free["CPU"] = 1.0
    assert fits(wide, free)
    take(wide, free)
    assert free["CPU"] == 0
    take(wide, free, +1)
    assert free["CPU"] == 1


def test_waves_keep_edges_and_resources() -> None:
    experiment = smoke("members.captioner-deep.init_from=captioner-wide")
    found = waves(experiment, set(experiment.members), {"CPU": 2.0})
    at = {name: number for number, wave in enumerate(found) for name in wave}
    assert at.keys() == experiment.members.keys()
    for name, member in experiment.members.items():
        assert all(at[edge] < at[name] for edge in member.edges())
    assert all(sum(experiment.members[name].resources.workers for name in wave) <= 3 for wave in found)
    everything_at_once = waves(experiment, set(experiment.members), {"CPU": 64.0})
    assert [len(wave) for wave in everything_at_once] == [4, 1, 1]
