"""What a result depends on, and that no command writes over it."""

from pathlib import Path

import pytest

from models.commands.output import refuse_part
from models.errors import InputError
from models.fingerprint import fingerprint
from models.settings import AudioEncoderConfig
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.experiment.member_config import FluencyDetectorMember
from ray_jobs.experiment.training_config import Training
from ray_jobs.run.directory import ADDED_TO_AUDIO_ENCODERS, ADDED_TO_MEMBERS, ADDED_TO_TRAINING, RunDirectory

from ..conftest import ROOT


def test_fields_that_were_added_leave_the_fingerprint_of_members_as_it_was() -> None:
    assert {field: Training.model_fields[field].default for field in ADDED_TO_TRAINING} == ADDED_TO_TRAINING
    of_encoders = ADDED_TO_AUDIO_ENCODERS
    assert {field: AudioEncoderConfig.model_fields[field].default for field in of_encoders} == of_encoders
    of_detectors = ADDED_TO_MEMBERS["fluency-detector"]
    assert {field: FluencyDetectorMember.model_fields[field].default for field in of_detectors} == of_detectors

    def inputs(*overrides: str) -> str:
        return RunDirectory(load_experiment(ROOT / "experiments" / "smoke.yaml", [*overrides])).member_inputs("fluency")

    assert inputs() == inputs("members.fluency.training.shuffle_clips=4096")
    assert inputs() != inputs("members.fluency.training.shuffle_clips=64")
    published = "members.fluency={kind: fluency-detector, checkpoint: %s}"
    assert len({inputs(), inputs(published % "a.ckpt"), inputs(published % "b.ckpt")}) == 3


def test_no_output_may_be_a_part_of_a_run(tmp_path: Path) -> None:
    """The inference library, which knows no runs, has their parts by name."""
    run = RunDirectory(load_experiment(ROOT / "experiments" / "smoke.yaml", [f"storage_path={tmp_path}"]))
    run.write_experiment()
    folders = (run.features("a"), run.member("a"), run.sweep("a"), run.search("a"), run.checkpoints, run.ensemble)
    some = (run.ensemble_of(["a"]), run.bundle, run.report / "clips")
    for part in (run.record, run.report / "index.html", *(folder / "a.csv" for folder in (*folders, *some))):
        with pytest.raises(InputError, match="is a part of the run"):
            refuse_part("--csv", part)


def test_a_detector_of_version_0_1_is_still_known() -> None:
    """Its settings, written out as that version knew them."""
    directory = RunDirectory(load_experiment(ROOT / "experiments" / "smoke.yaml"))
    member = directory.experiment.members["fluency"]
    settings = member.model_dump(
        mode="json", exclude={"resources": True, "checkpoint": True, "training": set(ADDED_TO_TRAINING)}
    )
    expected = fingerprint(settings, directory.experiment.seed, directory.features_inputs(), [])
    assert directory.member_inputs("fluency") == expected


def test_what_the_weights_do_not_depend_on_leaves_members_trained() -> None:
    def inputs(*overrides: str) -> str:
        experiment = load_experiment(ROOT / "experiments" / "smoke.yaml", [*overrides])
        return RunDirectory(experiment).member_inputs("retriever-bge")

    assert inputs() == inputs("members.*.resources.retries=5", "members.retriever-bge.doubtful_pairs=0.2")
    assert inputs() != inputs("members.retriever-bge.epsilon=0.5")


def test_retrievers_that_read_raw_captions_stay_valid() -> None:
    raw, normalised = (
        load_experiment(ROOT / "experiments" / "smoke.yaml", [f"members.@retriever.captions={form}"])
        for form in ("raw", "normalised")
    )
    (name, *_) = raw.of_kind("retriever")
    later = {"resources", "doubtful_pairs", *ADDED_TO_MEMBERS["retriever"]}
    before = raw.members[name].model_dump(mode="json", exclude=later)
    for field in ADDED_TO_TRAINING:
        del before["training"][field]
    for field in ADDED_TO_AUDIO_ENCODERS:
        del before["audio_encoder"][field]
    assert RunDirectory(raw).member_inputs(name) == fingerprint(
        before, raw.seed, RunDirectory(raw).features_inputs(), []
    )
    assert RunDirectory(raw).member_inputs(name) != RunDirectory(normalised).member_inputs(name)


def test_runs_share_members_that_read_the_same() -> None:
    def shared(name: str, *overrides: str) -> str:
        experiment = load_experiment(ROOT / "experiments" / "smoke.yaml", [*overrides])
        return RunDirectory(experiment).shared_inputs(name)

    codebooks = "features.codebooks=2"
    weak = "corpora.weak={kind: soundscapes, root: data/weak, splits: {train: 8}, seed: 1}"
    judged = "corpora.weak={kind: soundscapes, root: data/weak, splits: {train: 8, test: 8}, seed: 1}"
    for name in ("retriever-bge", "fluency"):
        assert shared(name) == shared(name, codebooks), "they read no codes"
        named = f"members.{name}.corpora=[soundscapes]"
        assert shared(name) == shared(name, named) == shared(name, weak, named), "they are trained on the same"
        assert shared(name) != shared(name, weak), "they are trained on it, too"
        assert shared(name, named) != shared(name, judged, named), "its test clips are kept out of all training"
        for other in ("seed=7", "features.max_duration_s=5", f"members.{name}.training.epochs=9"):
            assert shared(name) != shared(name, other)
    for other in (codebooks, "members.retriever-bge.epsilon=0.5"):
        assert shared("captioner-wide") != shared("captioner-wide", other)
