"""What a result depends on."""

from ray_jobs.experiment.loading import load_experiment
from ray_jobs.experiment.member_config import Training
from ray_jobs.run.directory import ADDED_TO_TRAINING, RunDirectory

from ..conftest import ROOT


def test_fields_that_were_added_leave_the_fingerprint_of_members_as_it_was() -> None:
    assert {field: Training.model_fields[field].default for field in ADDED_TO_TRAINING} == ADDED_TO_TRAINING

    def inputs(*overrides: str) -> str:
        return RunDirectory(load_experiment(ROOT / "experiments" / "smoke.yaml", [*overrides])).member_inputs("fluency")

    assert inputs() == inputs("members.fluency.training.shuffle_clips=4096")
    assert inputs() != inputs("members.fluency.training.shuffle_clips=64")


def test_what_the_weights_do_not_depend_on_leaves_members_trained() -> None:
    def inputs(*overrides: str) -> str:
        experiment = load_experiment(ROOT / "experiments" / "smoke.yaml", [*overrides])
        return RunDirectory(experiment).member_inputs("retriever-bge")

    assert inputs() == inputs("members.*.resources.retries=5", "members.retriever-bge.doubtful_pairs=0.2")
    assert inputs() != inputs("members.retriever-bge.epsilon=0.5")
