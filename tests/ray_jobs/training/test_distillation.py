"""What students read of their teachers: made once, kept by weights, of the very clip and caption of a step."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray.train.torch
import torch
from safetensors.numpy import save_file

from models.captioner.model import Captioner
from models.ensemble import bundle
from models.ensemble.clip import Clip
from models.retriever.model import Retriever
from ray_jobs import export
from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.features import embeddings, teacher_captions
from ray_jobs.features.dataset import read_features
from ray_jobs.features.files import FeaturesError
from ray_jobs.run.directory import NotReadyError, RunDirectory
from ray_jobs.train import is_trained
from ray_jobs.training.captioner_teachers import TeacherError
from ray_jobs.training.member_job import MemberJob
from ray_jobs.training.memory import worker_memory
from ray_jobs.training.plan import waves
from ray_jobs.training.tasks import captioner as captioner_task
from ray_jobs.training.tasks import retriever as retriever_task
from ray_jobs.training.tasks.base import make_task
from ray_jobs.training.tasks.captioner import CaptionerTask
from ray_jobs.training.tasks.retriever import RetrieverTask

from .distilled import CAPTIONERS, CLIPS, RETRIEVERS, captions, new_model, save, save_teachers, write_run

CPU = torch.device("cpu")


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """A run whose teachers are trained, and which has no embeddings yet; several files of each kind."""
    monkeypatch.setattr(embeddings, "SHARDS_PER_FILE", 4)
    monkeypatch.setattr(teacher_captions, "SHARDS_PER_FILE", 4)
    monkeypatch.setattr(ray.train.torch, "get_device", lambda: CPU)
    written = write_run(tmp_path)
    save_teachers(written)
    return written


def task_of(experiment: Experiment, name: str) -> Any:
    return make_task(MemberJob.of(experiment, RunDirectory(experiment), name))


def finish_teachers(experiment: Experiment) -> None:
    for name in RETRIEVERS:
        task_of(experiment, name).finish(0, 1, print)


def student_retriever(experiment: Experiment) -> RetrieverTask:
    finish_teachers(experiment)
    task = task_of(experiment, "student-r")
    assert isinstance(task, RetrieverTask)
    return task


def student_captioner(experiment: Experiment) -> CaptionerTask:
    """The task of student-c, whose own retriever is there, too."""
    words = [caption for clip in range(CLIPS) for caption in captions(clip)]
    save(experiment, "student-r", new_model(experiment.members["student-r"], experiment, words))
    finish_teachers(experiment)
    task_of(experiment, "student-r").finish(0, 1, print)
    task = task_of(experiment, "student-c")
    assert isinstance(task, CaptionerTask)
    return task


# --- the graph -----------------------------------------------------------------------------------------------------


def test_students_start_when_teachers_and_what_these_read_are_done(experiment: Experiment) -> None:
    assert experiment.edges("student-r") == [*RETRIEVERS]
    assert set(experiment.edges("student-c")) == {"student-r", *CAPTIONERS, *RETRIEVERS}
    cluster = {"CPU": 16.0}
    assert waves(experiment, set(experiment.members), cluster) == [
        [*RETRIEVERS], [*CAPTIONERS, "student-r"], ["student-c"]
    ]  # fmt: skip
    assert list(experiment.ensemble()) == list(experiment.members), "students are members like others, and so teachers"


def test_a_teacher_is_done_when_its_embeddings_for_students_are_there(experiment: Experiment) -> None:
    directory = RunDirectory(experiment)
    assert not is_trained(experiment, directory, RETRIEVERS[0])
    finish_teachers(experiment)
    assert is_trained(experiment, directory, RETRIEVERS[0])
    alone = experiment.model_copy(update={"members": {n: experiment.members[n] for n in (*RETRIEVERS, *CAPTIONERS)}})
    assert directory.member_inputs(RETRIEVERS[0]) == RunDirectory(alone).member_inputs(RETRIEVERS[0])
    assert not (directory.features("sounds", "validation") / embeddings.CAPTIONS.folder).exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("members.student-r.distil_from=[captioner-a]", "members.student-r.distil_from: 'captioner-a' is not a ret"),
        ("members.student-r.distil_from=[nobody]", "'nobody' is not among members"),
        ("members.student-r.distil_from=[retriever-a, retriever-a]", "name one twice"),
        ("members.student-r.mixup_alpha=0.4", "do not know mixed clips"),
        ("members.retriever-a.distil_from=[student-r]", "in a circle"),
        ("members.retriever-a.distillation.weight=0.5", "no effect without distil_from"),
        ("members.student-c.distillation={caption_share: 0}", "both 0"),
        ("members.student-c.distillation={temperature: 2}", "no effect without token_weight"),
    ],
)
def test_a_distillation_that_cannot_be_is_refused(experiment: Experiment, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_experiment(Path(experiment.storage_path) / "small.yaml", [override])


def test_what_the_weights_depend_on(experiment: Experiment) -> None:
    def inputs(member: str, *overrides: str) -> str:
        path = Path(experiment.storage_path) / "small.yaml"
        return RunDirectory(load_experiment(path, [*overrides])).member_inputs(member)

    for change in ("members.student-r.distillation.weight=0.9", "members.retriever-b.epsilon=0.07"):
        assert inputs("student-r") != inputs("student-r", change)
    assert inputs("student-r") == inputs("student-r", "members.student-r.distillation={temperature: 1, weight: 0.5}")


def test_the_plan_knows_the_weights_of_teachers_that_run_in_every_step(experiment: Experiment) -> None:
    memory = worker_memory(experiment, "student-c")
    alone = load_experiment(
        Path(experiment.storage_path) / "small.yaml", ["members.student-c.distillation={caption_share: 0.5}"]
    )
    without = worker_memory(alone, "student-c")
    assert memory
    assert without
    teachers = [worker_memory(experiment, name) for name in CAPTIONERS]
    assert memory.state - without.state == sum(one.state // 4 for one in teachers if one), "no gradient, no moments"
    assert memory.activations > without.activations


# --- retrievers ----------------------------------------------------------------------------------------------------


def test_a_student_reads_what_its_teachers_say_of_the_clip_and_the_very_caption(experiment: Experiment) -> None:
    task = student_retriever(experiment)
    teachers = [Retriever.load(RunDirectory(experiment).member(name)) for name in RETRIEVERS]
    seen = set[str]()
    for epoch in range(2):
        for batch in (task.read(planned) for planned in task.batches(epoch, 0, 1)):
            assert len(batch.said) == 2
            for teacher, (audio, text) in zip(teachers, batch.said, strict=True):
                clips = [task.train.log_mels[clip] for clip in batch.clips.tolist()]
                np.testing.assert_allclose(audio.numpy(), teacher.audio_embeddings(clips), atol=1e-5)
                np.testing.assert_allclose(text.numpy(), teacher.text_embeddings(batch.captions), atol=2e-3)
            seen |= set(batch.captions)
    assert len(seen) > CLIPS, "several captions of a clip"


def test_the_loss_of_a_step_is_that_of_similarities_that_were_never_stored(experiment: Experiment) -> None:
    task = student_retriever(experiment)
    model = task.new_model().eval()
    batch = task.read(next(task.batches(0, 0, 1)))
    losses = task.loss(model, batch, CPU)
    assert {"loss", "pair_loss", "distillation_loss", "padding"} == set(losses)
    targets = task._soft_targets(batch.said, CPU)
    assert targets
    clips = [task.train.log_mels[clip] for clip in batch.clips.tolist()]
    for name, found in zip(RETRIEVERS, targets.teachers, strict=True):
        teacher = Retriever.load(RunDirectory(experiment).member(name))
        expected = teacher.similarity(teacher.text_embeddings(batch.captions), teacher.audio_embeddings(clips))
        logits = teacher.loss_scale.logits(torch.from_numpy(-expected)).detach()
        torch.testing.assert_close(found.logits(), logits, rtol=0.02, atol=0.02)
    again = student_retriever(experiment)
    assert torch.equal(task.loss(model, again.read(next(again.batches(0, 0, 1))), CPU)["loss"], losses["loss"])


def test_workers_share_caption_embeddings_and_nothing_is_made_twice(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retriever_task, "broadcast_from_rank_zero", lambda value: value)
    said = list[str]()
    for rank in range(2):
        task_of(experiment, RETRIEVERS[0]).finish(rank, 2, said.append)
    assert [line.split("  ")[1].split(" in ")[0] for line in said if "caption" in line] == [
        "caption embeddings of 12 clips", "caption embeddings of 8 clips"
    ]  # fmt: skip
    files = sorted(RunDirectory(experiment).features("sounds", "train").glob("caption_embeddings/retriever-a/*"))
    assert len(files) == 3
    monkeypatch.setattr(Retriever, "load", lambda *_: pytest.fail("all is there"))
    task_of(experiment, RETRIEVERS[0]).finish(0, 1, said.append)


def test_embeddings_that_are_missing_or_of_other_weights_are_refused(experiment: Experiment) -> None:
    task = student_retriever(experiment)
    folder = RunDirectory(experiment).features("sounds", "train") / "caption_embeddings"
    model = Retriever.load(RunDirectory(experiment).member(RETRIEVERS[1]))
    with torch.no_grad():
        model.text_projection.get_parameter("0.bias").add_(1)
    save(experiment, RETRIEVERS[1], model)
    with pytest.raises(FeaturesError, match="embeddings of retriever-b with its present weights"):
        _ = task.teachers
    (folder / "retriever-a" / "00001.arrow").unlink()
    with pytest.raises(FeaturesError, match="no caption embeddings of retriever-a"):
        _ = task.teachers


# --- captioners ----------------------------------------------------------------------------------------------------


def caption_files(experiment: Experiment) -> list[Path]:
    return sorted(RunDirectory(experiment).features("sounds", "train").glob("teacher_captions/*/*.parquet"))


def test_captions_are_made_once_shared_by_workers_and_made_again_where_they_are_damaged(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, said = student_captioner(experiment), list[str]()
    for rank in range(2):
        task.begin(rank, 2, said.append)
    assert [line.split(" in ")[0] for line in said] == [
        "student-c  captions of captioner-a, captioner-b for 12 clips",
        "student-c  captions of captioner-a, captioner-b for 8 clips",
    ]
    files = caption_files(experiment)
    table = pd.concat(map(pd.read_parquet, files), ignore_index=True)
    assert list(table) == ["clip_id", "caption", "captioner", "log_likelihood"]
    assert table["clip_id"].tolist() == task.train.clip_ids
    assert set(table["captioner"]) <= {*CAPTIONERS}
    before = [file.stat().st_mtime_ns for file in files]
    files[1].write_bytes(files[1].read_bytes()[:100])
    task.begin(0, 1, said.append)
    after = [file.stat().st_mtime_ns for file in files]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]
    assert pd.concat(map(pd.read_parquet, files), ignore_index=True)["caption"].equals(table["caption"])
    monkeypatch.setattr(Captioner, "load", lambda *_: pytest.fail("all is there"))
    task.begin(0, 1, said.append)
    assert len(said) == 3


def test_a_share_of_the_captions_is_the_teachers(experiment: Experiment) -> None:
    task = student_captioner(experiment)
    task.begin(0, 1, print)
    replaced, drawn = 0, 0
    for epoch in range(6):
        for batch in (task.read(planned) for planned in task.batches(epoch, 0, 1)):
            again = student_read(experiment, epoch)
            assert batch.captions in again, "a training that is resumed reads the same"
            for clip in batch.captions:
                drawn += len(clip)
                replaced += sum(" times" not in caption for caption in clip)
    assert 0.3 < replaced / drawn < 0.7
    table = pd.concat(map(pd.read_parquet, caption_files(experiment)))
    assert task.teacher_captions == table["caption"].tolist()


def student_read(experiment: Experiment, epoch: int) -> list[list[list[str]]]:
    task = task_of(experiment, "student-c")
    return [task.read(planned).captions for planned in task.batches(epoch, 0, 1)]


def test_other_teachers_are_other_captions(experiment: Experiment) -> None:
    task = student_captioner(experiment)
    task.begin(0, 1, print)
    model = Captioner.load(RunDirectory(experiment).member(CAPTIONERS[0]))
    with torch.no_grad():
        model.bart.final_logits_bias.add_(torch.randn_like(model.bart.final_logits_bias))
    save(experiment, CAPTIONERS[0], model)
    other = task_of(experiment, "student-c")
    with pytest.raises(FeaturesError, match="found no captions of teachers"):
        _ = other.teacher_captions


def test_token_distributions_are_of_the_captions_of_the_step(experiment: Experiment) -> None:
    task = student_captioner(experiment)
    task.begin(0, 1, print)
    model = task.create().eval()
    batch = task.read(next(task.batches(0, 0, 1)))
    targets = task._soft_targets(model, batch)
    assert targets
    labels = model.labels([caption for clip in batch.captions for caption in clip])
    assert targets.log_probabilities.shape[:2] == labels.shape
    clips = next(task.batches(0, 0, 1)).clips
    mean = torch.zeros(targets.log_probabilities.shape)
    for name, retrievers in ((CAPTIONERS[0], RETRIEVERS[:1]), (CAPTIONERS[1], RETRIEVERS)):
        teacher = Captioner.load(RunDirectory(experiment).member(name))
        mels = [task.train.log_mels[clip] for clip in clips]
        heard = [Retriever.load(RunDirectory(experiment).member(one)).audio_embeddings(mels) for one in retrievers]
        with torch.no_grad():
            audio = torch.from_numpy(np.concatenate(heard, 1))
            states, mask = teacher.encode(*teacher.pad_codes(batch.codes), audio)
            logits = teacher.caption_logits(states.repeat_interleave(2, 0), mask.repeat_interleave(2, 0), labels)
        mean += logits.softmax(-1) / 2
    counted = labels >= 0
    torch.testing.assert_close(targets.log_probabilities.exp()[counted], mean[counted], atol=1e-3, rtol=0.02)
    losses = task.loss(model, batch, CPU)
    assert {"loss", "caption_loss", "mcm_loss", "distillation_loss", "padding"} == set(losses)


def test_teachers_with_another_tokenizer_are_refused(experiment: Experiment) -> None:
    task = student_captioner(experiment)
    member = task.job.member.model_copy(update={"tokenizer": "bpe"})
    other = captioner_task.CaptionerTask(replace(task.job, member=member))
    with pytest.raises(TeacherError, match=r"student-c.distillation.token_weight: 'captioner-a' has another tokeni"):
        other.create()


def test_features_are_those_of_the_run(experiment: Experiment) -> None:
    """The helper's clips have one to three captions each: places of captions and clips differ."""
    clips = read_features([RunDirectory(experiment).features("sounds", "train")])
    assert [len(one) for one in clips.captions[:4]] == [1, 2, 3, 1]


# --- exported alone ------------------------------------------------------------------------------------------------


class Codec:
    """Stands for the codec, which embeddings and codes of the test do without."""

    n_codebooks, frame_rate = 3, 25.0

    def provenance(self) -> dict[str, str]:
        return {}

    def save(self, path: Path) -> None:
        path.parent.mkdir()
        save_file({"none": np.zeros(1)}, path)

    def to(self, device: str) -> "Codec":
        return self


@pytest.fixture
def trained(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """The run with all students trained, too."""
    monkeypatch.setattr(export, "load_codec", lambda *_: Codec())
    monkeypatch.setattr(export, "write_self_test", lambda *_: None)  # made-up codes are not those of a codec
    monkeypatch.setattr(bundle, "load_codec", lambda *_: Codec())
    words = [caption for clip in range(CLIPS) for caption in captions(clip)]
    for name in ("student-r", "student-c"):
        save(experiment, name, new_model(experiment.members[name], experiment, words))
    return experiment


def clip_of(clips: Any, row: int) -> Clip:
    return Clip(clips.codes[row], clips.log_mels[row], 1.0)


def test_a_student_retriever_retrieves_alone(trained: Experiment) -> None:
    export.run(trained, "student-r")
    directory = RunDirectory(trained)
    found = bundle.Ensemble.load(directory.root / "bundle-student-r", device="cpu")
    assert (list(found.retrievers), list(found.captioners)) == (["student-r"], [])
    clips = read_features([directory.features("sounds", "validation")])
    found.index_clips(clips.clip_ids, [clip_of(clips, row) for row in range(CLIPS)])
    student = Retriever.load(directory.member("student-r"))
    expected = student.similarity(student.text_embeddings(["a dog"]), student.audio_embeddings(clips.log_mels))
    np.testing.assert_allclose(found.similarity(["a dog"]), expected, atol=1e-4)
    assert {path.name for path in directory.root.glob("bundle*")} == {"bundle-student-r"}


def test_a_student_captioner_captions_with_its_retriever(trained: Experiment) -> None:
    export.run(trained, "student-c, student-r")
    directory = RunDirectory(trained)
    found = bundle.Ensemble.load(directory.root / "bundle-student-c-student-r", device="cpu")
    clips = read_features([directory.features("sounds", "validation")])
    for one in found.caption_clips([clip_of(clips, row) for row in range(2)]):
        likeliest = max(one.candidates, key=lambda candidate: candidate.decoder_score)
        assert one.text == likeliest.text
        assert set(likeliest.captioner.replace("/beam", "").split("+")) == {"student-c"}


@pytest.mark.parametrize(
    ("members", "message"),
    [("student-c", "'student-c' reads the audio embeddings of 'student-r'"), ("nobody", "not among members")],
)
def test_members_that_cannot_work_alone_are_refused(trained: Experiment, members: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        export.run(trained, members)


def test_only_trained_members_are_exported(experiment: Experiment) -> None:
    with pytest.raises(NotReadyError, match="enclap train"):
        export.run(experiment, "student-r")
