"""What members' tasks read in training, and what they are validated by."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.captioner.model import Captioner
from models.generation.candidates import beam_search, encoded_batches
from models.metrics import captions as metrics
from models.metrics.captions import MissingPartError, caption_values
from models.settings import BeamConfig, CaptionerConfig, LogMelConfig
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.experiment.member_config import AnyMember, CaptionerMember, RetrieverMember
from ray_jobs.features.dataset import Features
from ray_jobs.features.embeddings import Embeddings
from ray_jobs.features.files import write_shard
from ray_jobs.training.member_job import MemberJob
from ray_jobs.training.reading import read_ahead
from ray_jobs.training.tasks.base import Task, make_task
from ray_jobs.training.tasks.captioner import CaptionerTask
from ray_jobs.training.tasks.member import MemberTask
from ray_jobs.training.tasks.retriever import RetrieverBatch, RetrieverTask

SMOKE = Path(__file__).parents[3] / "experiments" / "smoke.yaml"


def job_of(member: AnyMember, log_mel: LogMelConfig) -> MemberJob:
    """The training of a member whose features are set by the test."""
    return MemberJob(
        name=member.kind,
        seed=0,
        inputs="",
        output=Path(),
        member=member,
        train=[],
        train_weights=None,
        validation=[],
        embedded=[],
        log_mel=log_mel,
        edges={},
        monitor=member.available_monitor() if isinstance(member, CaptionerMember) else None,
    )


def retriever_batches(epoch: int, captions: list[list[str]] | None = None, **settings: Any) -> list[RetrieverBatch]:
    """One epoch of 16 clips, of which clip n is 40 + 10 n frames long, filled with n, and captioned by its number."""
    training = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3}
    member = RetrieverMember.model_validate({"kind": "retriever", "training": training, **settings})
    task = RetrieverTask(job_of(member, LogMelConfig(n_mels=3)))
    clips = [np.full((40 + 10 * n, 3), n, np.float16) for n in range(16)]
    names = [str(n) for n in range(16)]
    said = captions or [[name] for name in names]
    task.train = Features(names, names, said, [1.0] * 16, clips, clips, [0] * 16, [0] * 16, {})
    return [task.read(batch) for batch in task.batches(epoch, 0, 1)]


def test_a_retriever_reads_stretches_and_mixtures_in_training() -> None:
    for log_mel, lengths, captions, clips, *_ in retriever_batches(0, audio_encoder={"max_frames": 64}):
        assert captions == [str(clip) for clip in clips.tolist()]
        assert captions == [str(int(row[0, 0])) for row in log_mel]
        assert lengths.tolist() == [min(40 + 10 * int(caption), 64) for caption in captions]
        assert log_mel.shape[1] == lengths.max()
    plain, mixed = retriever_batches(0), retriever_batches(0, mixup_alpha=0.4)
    assert [len(captions) for _, _, captions, *_ in plain] == [8, 8]
    assert all(" and " not in caption for _, _, captions, *_ in plain for caption in captions)
    assert [sum(" and " in caption for caption in captions) for _, _, captions, *_ in mixed] == [2, 2]
    again = retriever_batches(0, mixup_alpha=0.4)
    assert all(torch.equal(one, other) for (one, *_), (other, *_) in zip(mixed, again, strict=True))


def test_a_retriever_reads_wrong_captions_of_each_clip_where_they_are_asked_for() -> None:
    said = [[f"a {noise} sounds then {noise} fades", f"{noise} and {noise}"] for noise in map(str, range(10, 26))]
    assert all(wrong is None for *_, wrong in retriever_batches(0, said))
    settings = {"wrong_captions": {"number": 2}}
    read, again, later = (retriever_batches(epoch, said, **settings) for epoch in (0, 0, 1))
    for batch in read:
        wrong = batch.wrong
        assert wrong is not None
        for caption, clip, of_clip in zip(batch.captions, batch.clips.tolist(), wrong, strict=True):
            assert caption in said[clip]
            assert not set(of_clip) & set(said[clip])
        assert any(wrong)
        assert all(len(of_clip) <= 2 for of_clip in wrong)
    assert [wrong for *_, wrong in read] == [wrong for *_, wrong in again]
    assert [wrong for *_, wrong in read] != [wrong for *_, wrong in later]


# --- captioners ----------------------------------------------------------------------------------------------------

CLIPS = 40  # more than validation takes at once
NOISES, PLACES = ("dog", "bell", "siren", "engine"), ("near", "far", "twice")
SPOKEN = [[f"a {NOISES[n % 4]} {verb} {PLACES[n % 3]}" for verb in ("sounds", "fades")] for n in range(CLIPS)]


def captioner_task(**settings: Any) -> CaptionerTask:
    """A task over 40 clips of 20 to 98 frames, for training and validation alike."""
    training = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3}
    raw = {"kind": "captioner", "audio_embedding": "retriever", "training": training, **settings}
    member = CaptionerMember.model_validate(raw)
    task = make_task(job_of(member, LogMelConfig()))
    assert isinstance(task, CaptionerTask)
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, 16, (20 + 2 * n, 3)).astype(np.int16) for n in range(CLIPS)]
    names = [str(n) for n in range(CLIPS)]
    features = Features(names, names, SPOKEN, [len(c) / 25 for c in codes], codes, codes, [0] * CLIPS, [0] * CLIPS, {})
    task.train = task.validation = features
    task.validation_embeddings = rng.normal(size=(CLIPS, 8)).astype(np.float32)
    task.train_embeddings = [Embeddings([task.validation_embeddings])]
    return task


def small_captioner(init_std: float) -> Captioner:
    torch.manual_seed(0)
    sizes = {
        "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 160,
        "init_std": init_std,
    }  # fmt: skip
    config = CaptionerConfig(
        language_model="random:bart",
        sizes=sizes,
        tokenizer="wordpiece",
        vocab_size=120,
        codebooks=3,
        codebook_size=16,
        audio_embedding_dim=8,
    )
    return Captioner.create(config, [caption for clip in SPOKEN for caption in clip]).eval()


@pytest.mark.parametrize(("monitor", "clips", "rows"), [("cider_d", None, range(40)), ("rouge_l", 10, range(0, 40, 4))])
def test_a_captioner_is_monitored_by_what_it_says(monitor: str, clips: int | None, rows: range) -> None:
    model = small_captioner(0.5)
    task = captioner_task(monitor=monitor, validation_clips=clips, validation_beams=3)
    assert (task.monitor, task.sign) == (monitor, 1)
    values = task.validate(model).values
    assert task.described.tolist() == list(rows)
    said = [""] * CLIPS
    for own, states, mask in encoded_batches(model, task.validation.codes, task.validation_embeddings, 5):
        for row, best in zip(own, beam_search(model, states, mask, BeamConfig(beams=3)), strict=True):
            said[row] = best.text
    expected = caption_values([said[row] for row in rows], [SPOKEN[row] for row in rows], [monitor])
    assert values[monitor] == pytest.approx(expected.corpus[monitor], abs=1e-6)
    assert values[monitor] > 0
    assert values["unique_share"] == len({said[row] for row in rows}) / len(rows)


def test_by_default_a_few_clips_are_captioned_to_see_a_collapse() -> None:
    task, model = captioner_task(), small_captioner(0.5)
    assert (task.monitor, task.sign, len(task.described)) == ("caption_loss", -1, 20)
    assert set(task.validate(model).values) == {"caption_loss", "unique_share", "vocabulary", "repetition"}
    unwatched = captioner_task(watched_clips=0).validate(model)
    assert set(unwatched.values) == {"caption_loss"}, "no caption is generated"


@pytest.mark.parametrize("settings", [{"monitor": "rouge_l"}, {}])
def test_a_collapse_is_reported_as_long_as_it_lasts(settings: dict[str, str]) -> None:
    task = captioner_task(**settings)
    collapsed = task.validate(small_captioner(1e-6))
    assert collapsed.values["unique_share"] == 1 / len(task.described)
    assert any("look collapsed" in warning for warning in collapsed.warnings)
    healthy = task.validate(small_captioner(0.5))
    assert not any("of the captions differ" in warning for warning in healthy.warnings)


def test_a_metric_that_cannot_be_computed_is_refused_before_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FENSE_DATA", str(tmp_path))
    with pytest.raises(MissingPartError, match=rf"members\.captioner\.monitor: fense: .*{metrics.CHECKER}"):
        captioner_task(monitor="fense")
    task = captioner_task(monitor="fense", fallback_monitor="cider_d")
    assert (task.monitor, task.sign) == ("cider_d", 1)


def test_all_nodes_choose_by_the_value_that_the_job_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FENSE_DATA", str(tmp_path))  # the command runs on a machine without FENSE's parts
    job = captioner_task(monitor="fense", fallback_monitor="cider_d").job
    monkeypatch.setattr("ray_jobs.training.tasks.captioner.missing_parts", lambda metric: "")  # a node that has them
    assert make_task(job).monitor == "cider_d"


def test_an_interrupted_training_goes_on_with_what_it_was_monitored_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray_jobs.training.tasks.captioner.missing_parts", lambda metric: "")
    monkeypatch.setattr("models.metrics.captions.missing_parts", lambda metric: "")
    for before, sign in (("caption_loss", -1), ("cider_d", 1), ("fense", 1)):
        task = captioner_task(monitor="fense", fallback_monitor="cider_d" if before == "fense" else before)
        assert task.monitor == "fense"
        task.keep_monitor({before: 0.5, "seconds": 1.0})
        assert (task.monitor, task.sign) == (before, sign)


def test_padding_is_among_the_values_of_a_step() -> None:
    task = captioner_task()
    batch = task.read(next(task.batches(0, 0, 1)))
    lengths = [len(codes) for codes in batch[0]]
    losses = task.loss(small_captioner(0.5).train(), batch, torch.device("cpu"))
    assert float(losses["padding"]) == pytest.approx(1 - np.mean(lengths) / max(lengths))
    assert {"loss", "caption_loss", "mcm_loss", "padding"} == set(losses)


# --- every kind ----------------------------------------------------------------------------------------------------


def losses_of_epochs(task: Task, model: torch.nn.Module, epochs: int) -> list[float]:
    """Train on the task's own batches with its own loss; the mean loss of each epoch."""
    optimizer, means = torch.optim.AdamW(model.parameters(), 3e-3), []
    for epoch in range(epochs):
        losses = []
        for batch in map(task.read, task.batches(epoch, 0, 1)):
            loss = task.loss(model.train(), batch, torch.device("cpu"))["loss"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
        means.append(float(np.mean(losses)))
    return means


def smoke_task(name: str) -> MemberTask:
    """The task of a member of experiments/smoke.yaml, over 24 clips that differ in spectrum and captions."""
    experiment = load_experiment(SMOKE)
    task = make_task(job_of(experiment.members[name], experiment.features.log_mel))
    assert isinstance(task, MemberTask)
    rng, names = np.random.default_rng(0), [str(n) for n in range(24)]
    log_mels = [(rng.normal(size=64) + 0.1 * rng.normal(size=(64, 64))).astype(np.float16) for _ in names]
    captions = [SPOKEN[n % 12] for n in range(24)]
    task.train = Features(names, names, captions, [2.0] * 24, log_mels, log_mels, [0] * 24, [0] * 24, {})
    return task


@pytest.mark.parametrize("name", ["retriever-roberta", "fluency"])
def test_members_learn_from_their_batches(name: str) -> None:
    torch.manual_seed(0)
    task = smoke_task(name)
    losses = losses_of_epochs(task, task.new_model(), 40)
    assert np.mean(losses[-3:]) < 0.8 * losses[0]


def test_a_captioner_learns_from_its_batches() -> None:
    losses = losses_of_epochs(captioner_task(), small_captioner(0.02), 10)
    assert np.mean(losses[-3:]) < 0.8 * losses[0]


@pytest.mark.parametrize("name", ["retriever-roberta", "fluency", "captioner"])
def test_a_step_in_bfloat16_is_that_of_float32_but_for_rounding(name: str) -> None:
    """Weights and their gradients stay float32, and the gradient points the same way."""
    torch.manual_seed(0)
    task = captioner_task() if name == "captioner" else smoke_task(name)
    model = (small_captioner(0.1) if name == "captioner" else task.new_model()).eval()  # without dropout
    batch = task.read(next(task.batches(0, 0, 1)))
    losses, gradients = [], []
    for dtype in (torch.float32, torch.bfloat16):
        model.zero_grad()
        task.seed_step(0, 0, 0)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = task.loss(model, batch, torch.device("cpu"))["loss"]
        loss.backward()
        own = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        assert {gradient.dtype for gradient in own} == {torch.float32}
        losses.append(float(loss.detach()))
        gradients.append(torch.cat([gradient.flatten() for gradient in own]))
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1] != losses[0], "nothing was computed in bfloat16"
    assert torch.nn.functional.cosine_similarity(gradients[0], gradients[1], dim=0) > 0.98


# --- the order of an epoch -----------------------------------------------------------------------------------------


def weighted_task(folder: Path, **training: Any) -> RetrieverTask:
    """A task over two corpora in files, of 40 and 8 clips in shards of 8, that make equal parts of an epoch."""
    for corpus, number in (("large", 40), ("small", 8)):
        rows = [
            {
                **dict.fromkeys(("clip_id", "path", "freesound_id", "youtube_id", "audio_sha256"), f"{corpus}{n}"),
                "duration_s": 1.0 + n % 5,
                "captions": [f"{corpus} {n} {word}" for word in ("sounds", "fades", "returns")],
                "codes": np.zeros((1, 1), np.int16),
                "log_mel": np.random.default_rng(n).normal(size=(50 + n, 3)).astype(np.float16),
            }
            for n in range(number)
        ]
        for at in range(0, number, 8):
            shard = folder / corpus / "train" / f"{at // 8:05d}.arrow"
            write_shard(shard, rows[at : at + 8], {"codec": {}}, codebooks=1, mels=3)
    raw = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "shuffle_clips": 16, **training}
    member = RetrieverMember.model_validate({"kind": "retriever", "training": raw, "audio_encoder": {"max_frames": 48}})
    job = job_of(member, LogMelConfig(n_mels=3))
    train = [folder / corpus / "train" for corpus in ("large", "small")]
    return RetrieverTask(replace(job, train=train, train_weights=[1.0, 1.0]))


def epoch_of(task: RetrieverTask, epoch: int, rank: int = 0, world: int = 1) -> list[Any]:
    return [task.read(batch) for batch in task.batches(epoch, rank, world)]


def test_an_epoch_is_what_its_weights_say_in_windows_of_shards(tmp_path: Path) -> None:
    task = weighted_task(tmp_path)
    rows = task.epoch_clips(task.rng(0))
    assert np.bincount(np.asarray(task.train.origins)[rows]).tolist() == [24, 24]
    assert np.bincount(rows, minlength=48)[40:].tolist() == [3] * 8, "all clips of the small corpus, three times"
    assert not np.array_equal(rows, task.epoch_clips(task.rng(1)))
    assert np.array_equal(rows, weighted_task(tmp_path).epoch_clips(task.rng(0)))


def test_a_clip_that_is_drawn_often_comes_once_in_each_pass_through_its_shard(tmp_path: Path) -> None:
    task = weighted_task(tmp_path, shuffle_clips=1)
    apart = 0
    for epoch in range(5):
        rows = task.epoch_clips(task.rng(epoch))
        assert np.sort(rows[rows >= 40].reshape(3, 8)).tolist() == [list(range(40, 48))] * 3
        apart += int(np.ptp(np.flatnonzero(rows >= 40))) > 23
    assert apart >= 3, "the passes do not follow each other"


def test_a_window_reads_few_shards(tmp_path: Path) -> None:
    task = weighted_task(tmp_path)
    task.job = replace(task.job, train_weights=None)
    rows = task.epoch_clips(task.rng(0))
    assert sorted(rows) == list(range(48))
    assert [len(set(np.asarray(task.train.shards)[rows[at : at + 16]])) for at in range(0, 48, 16)] == [2, 2, 2]


@pytest.mark.parametrize("world", [2, 4])
def test_any_number_of_workers_reads_the_same_batches(tmp_path: Path, world: int) -> None:
    """The same clips, captions and stretches of them, in the same steps."""
    task = weighted_task(tmp_path)
    workers = [epoch_of(task, 2, rank, world) for rank in range(world)]
    for step, (log_mels, lengths, captions, clips, *_) in enumerate(epoch_of(task, 2)):
        for rank, (own, own_lengths, own_captions, own_clips, *_) in enumerate(worker[step] for worker in workers):
            assert own_clips.tolist() == clips[rank::world].tolist()
            assert own_captions == captions[rank::world]
            assert own_lengths.tolist() == lengths[rank::world].tolist()
            assert torch.equal(own, log_mels[rank::world, : own.shape[1]])


def test_a_batch_is_the_same_without_those_before_it_and_in_any_thread(tmp_path: Path) -> None:
    """So a training that is resumed at a step reads on from it."""
    whole = epoch_of(weighted_task(tmp_path), 1)
    task = weighted_task(tmp_path)
    plans = list(islice(task.batches(1, 0, 1), 3, None))
    resumed = list(read_ahead(plans, task.read, threads=3, ahead=4))
    assert len(resumed) == len(whole) - 3
    for batch, expected in zip(resumed, whole[3:], strict=True):
        assert torch.equal(batch[0], expected[0])
        assert batch[2] == expected[2]
        assert torch.equal(batch[3], expected[3])
