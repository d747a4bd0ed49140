"""What a result depends on."""

from ray_jobs.experiment.fingerprint import fingerprint
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


def test_retrievers_that_read_raw_captions_stay_valid() -> None:
    raw, normalised = (
        load_experiment(ROOT / "experiments" / "smoke.yaml", [f"members.@retriever.captions={form}"])
        for form in ("raw", "normalised")
    )
    (name, *_) = raw.of_kind("retriever")
    before = raw.members[name].model_dump(mode="json", exclude={"resources", "captions"})
    del before["training"]["shuffle_clips"]
    assert RunDirectory(raw).member_inputs(name) == fingerprint(
        before, raw.seed, RunDirectory(raw).features_inputs(), []
    )
    assert RunDirectory(raw).member_inputs(name) != RunDirectory(normalised).member_inputs(name)
