"""Experiment files: what is accepted, and what the errors say."""

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest

from models.codec.weights import CodecError, find_weights
from models.ensemble.scores.registry import SCORES
from models.files import GIT_LFS
from models.hub import WEIGHTS, local_file
from ray_jobs.experiment.config import ConfigError
from ray_jobs.experiment.loading import load_codec_experiment, load_experiment
from ray_jobs.experiment.member_config import CaptionerMember, RetrieverMember
from ray_jobs.experiment.search_config import ScoreKind
from ray_jobs.run.directory import RunDirectory

ROOT = Path(__file__).parents[3]
SMOKE = ROOT / "experiments" / "smoke.yaml"


@pytest.mark.parametrize(("name", "captioners"), [("demo", 2), ("smoke", 2), ("dcase2024", 3)])
def test_shipped_experiments_load(name: str, captioners: int) -> None:
    experiment = load_experiment(ROOT / "experiments" / f"{name}.yaml")
    assert experiment.name == name
    assert len(experiment.of_kind("retriever")) == 3
    assert len(experiment.of_kind("captioner")) == captioners


def test_what_others_start_from_is_not_part_of_the_ensemble() -> None:
    overrides = [
        "members.captioner-deep.init_from=captioner-wide",
        "members.retriever-bert.init_from=retriever-bge",
        "members.captioner-deep.audio_embedding=retriever-bge",
    ]
    ensemble = load_experiment(SMOKE, overrides).ensemble()
    assert "captioner-wide" not in ensemble
    assert "retriever-bge" in ensemble, "a captioner of the ensemble reads it"
    overrides[2] = "members.captioner-deep.audio_embedding=retriever-bert"
    assert "retriever-bge" not in load_experiment(SMOKE, overrides).ensemble()


def test_a_captioner_reads_one_retriever_or_several() -> None:
    several = "members.captioner-wide.audio_embedding=[retriever-bge, retriever-roberta]"
    assert load_experiment(SMOKE).members["captioner-wide"].edges() == ["retriever-bge"]
    assert load_experiment(SMOKE, [several]).members["captioner-wide"].edges() == ["retriever-bge", "retriever-roberta"]
    assert load_experiment(SMOKE, ["members.captioner-wide.audio_embedding=[]"]).members["captioner-wide"].edges() == []
    with pytest.raises(ConfigError, match="'fluency' is not a retriever"):
        load_experiment(SMOKE, ["members.captioner-wide.audio_embedding=[retriever-bge, fluency]"])


def test_overrides_reach_any_field() -> None:
    overrides = ["seed=7", "members.fluency.training.epochs=9", "features.codebooks=2"]
    experiment = load_experiment(SMOKE, overrides)
    assert (experiment.seed, experiment.features.codebooks) == (7, 2)
    assert experiment.members["fluency"].epochs == 9


def test_an_override_reaches_all_members_those_of_a_kind_or_those_of_a_name() -> None:
    overrides = ["members.*.training.epochs=1", "members.@captioner.training.epochs=2"]
    overrides += ["members.captioner-w*.training.epochs=3", "members.*.resources.custom={fast: 1}"]
    members = load_experiment(SMOKE, overrides).members
    expected = {"captioner-wide": 3, "captioner-deep": 2}
    assert {name: member.epochs for name, member in members.items()} == {
        name: expected.get(name, 1) for name in members
    }
    members["fluency"].resources.custom.clear()
    assert members["captioner-wide"].resources.custom == {"fast": 1}, "a mapping is not shared between members"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("members.@captoiner.seed=1", "nothing of kind 'captoiner'; there are: captioner, fluency-detector, retriever"),
        ("members.capt?.seed=1", "nothing like 'capt.'; there are: retriever-bge, "),
        ("members.*.training.epohcs=1", "members.retriever-bge.training.epohcs'; did you mean 'epochs'"),
        ("members.*.kind.of=1", "'kind' holds a value, not keys"),
        ("serach.trials=3", "unknown key 'serach'; did you mean 'search'?"),
        ("members.fluency.training.epohcs=3", "members.fluency.training.epohcs'; did you mean 'epochs'?"),
        ("members.captioner-deep.audio_embedding=fluency", "'fluency' is not a retriever"),
        ("members.captioner-deep.audio_embedding=nobody", "'nobody' is not among members"),
        ("members.captioner-deep.audio_embedding=retreiver-bge", "; did you mean 'retriever-bge'"),
        ("members.captioner-deep.init_from=retriever-bge", "'retriever-bge' is not a captioner"),
        ("members.captioner-deep.init_from=captioner-deep", "in a circle: captioner-deep"),
        (
            "members.retriever-bge.init_from=retriever-roberta",
            "members.retriever-bge.text_encoder.name: found 'random:bert', expected 'random:roberta' as "
            "'retriever-roberta' has",
        ),
        ("members.fluency.resources.workers=3", "training.batch_size: 64 is not a multiple of resources.workers .3."),
        (
            "members.fluency.resources.workers=[1, 3]",
            "training.batch_size: 64 is not a multiple of resources.workers .3.",
        ),
        ("members.fluency.resources.workers=[2, 1]", r"workers: found \[2, 1\], expected \[least, most\]"),
        ("members.fluency.resources.workers=[0, 1]", "resources.workers"),
        ("members.fluency.resources.custom={GPU: 1}", "custom: 'GPU' is not a custom resource; use cpus_per_worker"),
        ("members.fluency.resources.accelerator_type=H100", "accelerator_type: needs gpus_per_worker above 0"),
        ("members.retriever-bge.training.accumulate=2", "training.accumulate: .*use gradient_cache"),
        ("members.fluency.corpora={soundscapes: 0}", "members.fluency.corpora: all shares are 0"),
        ("members.fluency.corpora=[clotho]", "'clotho' is not among corpora .soundscapes."),
        ("target_corpus=clotho", "'clotho' is not among corpora"),
        ("seed=many", "seed: .*valid integer.*'many'"),
        ("corpora.soundscapes.splits.train=0", "splits.train: .*greater than or equal to 2"),
        ("name=../elsewhere", "name: "),
        ("seed", "expected key=value"),
        ("seed=1:30", "seed: .*valid integer.*'1:30'"),
        ("time_limit=8:00", "time_limit: .* a duration such as 8h, 90m or 1h30m .found '8:00'."),
        (
            "members.fluency.kind=flency-detector",
            r"members.fluency.kind: found 'flency-detector', expected one of retriever, captioner, fluency-detector; "
            r"did you mean 'fluency-detector'\?$",
        ),
        ("members.fluency.kind=parrot", "members.fluency.kind: found 'parrot', expected one of .*fluency-detector$"),
        ("corpora.soundscapes.kind=clotha", "corpora.soundscapes.kind: found 'clotha', .*; did you mean 'clotho'"),
        (
            "members.retreiver-bge.training.epochs=1",
            r"^'members.retreiver-bge.training.epochs=1': 'retreiver-bge' is not among members \(retriever-bge, .*; "
            r"did you mean 'retriever-bge'\?$",
        ),
        ("corpora.sounscapes.root=/data", "^'corpora.sounscapes.root=/data': .*; did you mean 'soundscapes'"),
        ("members.new={training: {epochs: 1}}", "smoke.yaml: members.new.kind: missing; expected one of retriever, "),
        ("members.retreiver-*.training.epochs=1", "nothing like 'retreiver-.*; did you mean 'retriever-b"),
        ("members.@captoiner.training.epochs=1", "nothing of kind .*; did you mean 'captioner'"),
        ("tracking=[mlflw]", "tracking.0: .*'mlflow' or 'wandb'.*; did you mean 'mlflow'"),
        ("presets=god", "expected one of quick, good, best; did you mean 'good'"),
        ("members.captioner-deep.training.layer_decay=0.9", "members.captioner-deep: training.layer_decay: "),
        ("members.captioner-deep.training={epochs: 1, learning_rate: 1, schedule: inverse-sqrt}", "needs time_scale"),
        ("members.captioner-deep.training.time_scale=9", "time_scale: schedule 'cosine' has none"),
        ("members.captioner-deep.monitor=bleu", "monitor: .*'caption_loss', 'bleu_4'"),
        ("members.captioner-deep.validation_clips=20", "for another monitor than caption_loss"),
        (
            "members.retriever-bge.audio_encoder.checkpoint=a.pth",
            "'n_mels': 64.*audio_encoder.checkpoint was trained on",
        ),
        ("members.retriever-bge.text_encoder.finetuning=lora", "leaves the random weights of 'random:bert' untrained"),
    ],
)
def test_errors_name_file_key_and_remedy(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_experiment(SMOKE, [override])


def test_files_that_are_not_experiments(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_experiment(tmp_path / "absent.yaml")
    pointer = f"{GIT_LFS.decode()}v1\noid sha256:0\nsize 438\n"
    for content, message in [
        ("a: [", "not YAML"),
        ("- 1", "found a list, expected a mapping"),
        ("", "found nothing, expected a mapping"),
        (f"extends: {SMOKE}\nbeam: 3\nmembers: 3", "members: found a number, expected a mapping"),
        (pointer, r"bad\.yaml: found a pointer of Git LFS, expected the experiment"),
    ]:
        (tmp_path / "bad.yaml").write_text(content)
        with pytest.raises(ConfigError, match=message):
            load_experiment(tmp_path / "bad.yaml")


def test_a_time_of_day_is_not_a_number_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "limited.yaml").write_text(f"extends: {SMOKE}\ntime_limit: 8:00\n")
    with pytest.raises(ConfigError, match=r"limited.yaml .*: time_limit: .*\(found '8:00'\)"):
        load_experiment(tmp_path / "limited.yaml")
    (tmp_path / "limited.yaml").write_text(f"extends: {SMOKE}\ntime_limit: 480\nseed: 1_000\n")
    experiment = load_experiment(tmp_path / "limited.yaml")
    assert (experiment.time_limit, experiment.seed) == (timedelta(seconds=480), 1000)


def test_a_tilde_is_the_home_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "bert").mkdir()
    overrides = ["storage_path=~/runs", "members.retriever-bge.text_encoder=~/bert"]
    experiment = load_experiment(SMOKE, overrides)
    retriever = experiment.members["retriever-bge"]
    assert isinstance(retriever, RetrieverMember)
    assert (experiment.storage_path, retriever.text_encoder.name) == (str(tmp_path / "runs"), str(tmp_path / "bert"))


def test_a_home_directory_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="'~nobody-here/runs': there is no such home directory"):
        load_experiment(SMOKE, ["storage_path=~nobody-here/runs"])


def test_a_name_too_long_for_a_path_is_none() -> None:
    name = "a" * 300
    experiment = load_experiment(SMOKE, [f"members.retriever-bge.text_encoder.name={name}"])
    assert experiment.members["retriever-bge"].text_encoder.name == name  # type: ignore[union-attr]
    assert local_file(name, WEIGHTS) is None
    with pytest.raises(CodecError, match="no such file or directory"):
        find_weights(f"{name}.pth")


def test_a_name_that_a_score_has_is_refused() -> None:
    for name, message in {"length": "a reranking score", "ensemble": "results call", "a/b": "expected letters"}.items():
        with pytest.raises(ConfigError, match=message):
            load_experiment(
                SMOKE, [f"members.{name}={{kind: retriever, training: {{epochs: 1, learning_rate: 1e-3}}}}"]
            )


def test_paths_become_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bert").mkdir()
    (tmp_path / "bart").mkdir()
    (tmp_path / "ast").mkdir()
    encoders = ["features.log_mel={}", "members.retriever-bge.audio_encoder={checkpoint: weights/tiny.pth}"]
    encoders += ["members.retriever-bert.audio_encoder=hf:ast", "members.retriever-roberta.audio_encoder=hf:MIT/ast"]
    names = ["members.retriever-bert.text_encoder=bert", "members.retriever-roberta.text_encoder=roberta-base"]
    names += ["members.captioner-wide.language_model=bart", "members.captioner-deep.language_model=facebook/bart-base"]
    mixtures = "corpora.mixtures={kind: mixtures, root: clotho, pairs: pairs.json}"
    experiment = load_experiment(SMOKE, [*encoders, *names, mixtures])
    bge, bert, roberta = (member for member in experiment.members.values() if isinstance(member, RetrieverMember))
    assert bge.audio_encoder.checkpoint == str(tmp_path / "weights" / "tiny.pth")
    assert (bert.audio_encoder.backbone, roberta.audio_encoder.backbone) == (f"hf:{tmp_path / 'ast'}", "hf:MIT/ast")
    assert (bert.text_encoder.name, roberta.text_encoder.name) == (str(tmp_path / "bert"), "roberta-base")
    wide, deep = (member for member in experiment.members.values() if isinstance(member, CaptionerMember))
    assert (wide.language_model, deep.language_model) == (str(tmp_path / "bart"), "facebook/bart-base")
    assert experiment.storage_path == str(tmp_path / "runs")
    mixed = experiment.corpora["mixtures"].model_dump()
    assert (mixed["root"], mixed["pairs"]) == (str(tmp_path / "clotho"), str(tmp_path / "pairs.json"))
    assert experiment.corpora["soundscapes"].root == str(tmp_path / "data" / "soundscapes-smoke")


def test_an_override_of_one_member_leaves_its_anchors_others_alone() -> None:
    deep = "members.captioner-deep.training.epochs=7"
    members = load_experiment(SMOKE, [deep]).members
    assert members["captioner-deep"].epochs == 7
    assert members["captioner-wide"].epochs != 7


@pytest.mark.parametrize(
    ("ensemble", "message"),
    [
        ("joint: {members: [captioner-wide, retriever-bge]}", "'retriever-bge' is not among the ensemble's captioners"),
        ("joint: {members: [captioner-wide, captioner-wide]}", "token_ensembles.joint.members"),
        ("fluency: {members: [captioner-wide, captioner-deep]}", "a member has this name already"),
    ],
)
def test_token_ensembles_join_captioners(ensemble: str, message: str) -> None:
    good = "token_ensembles={joint: {members: [captioner-wide, captioner-deep]}}"
    assert load_experiment(SMOKE, [good]).caption_sources() == ["captioner-wide", "captioner-deep", "joint"]
    with pytest.raises(ConfigError, match=message):
        load_experiment(SMOKE, [f"token_ensembles={{{ensemble}}}"])


def test_a_token_ensemble_is_another_search() -> None:
    joint = load_experiment(SMOKE, ["token_ensembles={joint: {members: [captioner-wide, captioner-deep]}}"])
    assert RunDirectory(joint).search_inputs() != RunDirectory(load_experiment(SMOKE)).search_inputs()


def test_the_kinds_of_scores_are_those_that_are_registered() -> None:
    assert list(get_args(ScoreKind)) == [score.name for score in SCORES]


FOLDER = "{kind: folder, root: ., splits: [train, validation, test]}"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("features.max_duration_s=.inf", "finite number"),
        ("sampling.temperature=.inf", "finite number"),
        ("members.retriever-bge.training.learning_rate=.nan", "finite number"),
        ("members.retriever-bge.epsilon=.inf", "finite number"),
        ("prepare.cpus=.inf", "finite number"),
        ("features.log_mel.f_max=8001", "expected 8000 at most, half of sample_rate"),
        ("features.log_mel.f_min=8000", "expected more than f_min"),
        ("seed=-1", "greater than or equal to 0"),
        ("seed=2147483648", "less than 2147483648"),
        ("corpora.soundscapes.seed=-1", "greater than or equal to 0"),
        ("corpora.soundscapes.caption_noise=1.1", "less than or equal to 1"),
        ("features.max_duration_s=1e-9", "greater than or equal to 0.1"),
        (f"name={'x' * 201}", "name: String should match pattern"),
        (
            f"members.{'x' * 201}={{kind: retriever, training: {{epochs: 1, learning_rate: 1}}}}",
            "underscores .*, 200 at",
        ),
        *(
            (f"corpora={{soundscapes: {FOLDER}, {name!r}: {FOLDER}}}", f"corpora: '{re.escape(name)}': .*, 200 at")
            for name in ("../x", "a/b", ".", "x" * 201)
        ),
        ("seed=true", r"smoke\.yaml: seed: expected a number \(found True\)"),
        ("sampling.temperature=true", r"sampling\.temperature: expected a number \(found True\)"),
        ("members.fluency.corpora={soundscapes: true}", r"members\.fluency\.corpora\.soundscapes: expected a number"),
        ("members.fluency.resources.workers=[1, true]", r"members\.fluency\.resources\.workers\.1: expected a number"),
    ],
)
def test_settings_that_cannot_work_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_experiment(SMOKE, [override])


def test_truths_stay_what_they_are_where_they_are_meant() -> None:
    found = load_experiment(SMOKE, ["autoscaling=true", "sampling.static_cache=true", "search.mixtures=false"])
    assert (found.autoscaling, found.sampling.static_cache, found.search.mixtures) == (True, True, False)


@pytest.mark.parametrize(
    "key", ["features.codec", "members.retriever-bge.text_encoder", "members.@captioner.language_model"]
)
def test_a_path_in_the_place_of_a_name_is_made_absolute(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's workers run in other directories, and know no shell's `~`."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here/model").mkdir(parents=True)

    def loaded(value: str) -> str:
        found: Any = load_experiment(SMOKE, [f"{key}={value}"])
        codec, member = found.features.codec, found.members
        text = member["retriever-bge"].text_encoder.name
        return str(
            {"codec": codec, "text_encoder": text}.get(key.rpartition(".")[2], member["captioner-wide"].language_model)
        )

    assert loaded("~/model") == str(tmp_path / "home/model")
    assert loaded("here/model") == str(tmp_path / "here/model")
    assert loaded("./gone") == str(tmp_path / "gone")
    assert loaded("some/hub-id") == "some/hub-id"


def test_a_codecs_file_is_found_from_elsewhere_and_its_name_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.safetensors").touch()
    (tmp_path / "dac-44khz").mkdir()
    codecs = [
        load_experiment(SMOKE, [f"features.codec={one}"]).features.codec for one in ("mine.safetensors", "dac-44khz")
    ]
    assert codecs == [str(tmp_path / "mine.safetensors"), "dac-44khz"]


def test_a_codecs_training_has_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    codec = ROOT / "experiments" / "codec.yaml"
    assert load_codec_experiment(codec, ["storage_path=~/runs"]).storage_path == str(tmp_path / "runs")
    with pytest.raises(ConfigError, match="storage_path: found 's3://bucket', expected a directory"):
        load_codec_experiment(codec, ["storage_path=s3://bucket"])


@pytest.mark.parametrize(
    ("text", "path"),
    [("/data/run #3", "/data/run #3"), ("'/data/a b'", "/data/a b"), ("/2024-01-01", "/2024-01-01")],
)
def test_text_of_an_override_is_taken_as_it_stands(text: str, path: str) -> None:
    assert load_experiment(SMOKE, [f"storage_path={text}"]).storage_path == path


def test_members_with_dots_in_their_names_are_overridden() -> None:
    member = load_experiment(SMOKE).members["fluency"].model_dump(mode="json", exclude_unset=True)
    added = [f"members={json.dumps({'judge.v1': member, 'judge.v1.large': member})}"]
    overrides = [*added, "members.judge.v1.training.epochs=7", "members.judge.v1.large.training.epochs=9"]
    found = load_experiment(SMOKE, overrides).members
    assert (found["judge.v1"].epochs, found["judge.v1.large"].epochs) == (7, 9)


def test_noise_in_captions_that_nobody_is_trained_on_is_refused() -> None:
    other = {"kind": "soundscapes", "root": "x", "splits": {"test": 4}, "caption_noise": 0.5}
    with pytest.raises(ConfigError, match=r"corpora\.x\.caption_noise: has no effect without the split train"):
        load_experiment(SMOKE, [f"corpora.x={json.dumps(other)}"])
    other["splits"] = {"train": 4}
    assert load_experiment(SMOKE, [f"corpora.x={json.dumps(other)}"]).corpora["x"].caption_noise == 0.5


def test_spaces_around_the_text_of_an_override_are_none_of_it() -> None:
    found = load_experiment(SMOKE, ["storage_path= /data ", "seed= 3"])
    assert (found.storage_path, found.seed) == ("/data", 3)


def test_a_member_whose_name_is_no_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="members"):
        load_experiment(SMOKE, ["members={1.5: {kind: retriever}}", "members.fluency.training.epochs=2"])
