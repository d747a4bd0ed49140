"""`enclap doctor` names what is missing with the command that gets it, and what an experiment needs of it."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import soundfile
import torch
from safetensors.torch import save_file

from models.files import GIT_LFS
from models.metrics import java_parts
from models.metrics.captions import CHECKER, CHECKER_BASE, DEFAULT_METRICS, SBERT
from ray_jobs import cli
from ray_jobs.diagnosis import machine, needs
from ray_jobs.training import tracking

from .conftest import ROOT

SMOKE = str(ROOT / "experiments" / "smoke.yaml")
METRICS_EXTRA = "pip install -e '.[metrics]'"
BASE = "hf download bert-base-uncased"
COMMANDS = {  # of all that a machine may lack
    "Java": METRICS_EXTRA,
    "METEOR's jar": METRICS_EXTRA,
    "PTB tokenizer's jar": METRICS_EXTRA,
    "SPICE's jars": "aac-metrics-download",
    "SBERT": "aac-metrics-download",
    "FENSE's error checker": "aac-metrics-download",
    "bert-base-uncased": BASE,
    "GPU": "use a machine with an NVIDIA GPU and its driver",
    "faiss": "pip install faiss-cpu",
    "optuna": "pip install optuna",
    "tensorboard": "pip install tensorboard",
    "mlflow": "pip install -e '.[mlflow]'",
    "wandb": "pip install -e '.[wandb]'",
    "libsndfile": "pip install --upgrade soundfile",
    "av": "pip install av",
    "meteor": METRICS_EXTRA,
    "spice": f"aac-metrics-download && {METRICS_EXTRA}",
    "spider": f"aac-metrics-download && {METRICS_EXTRA}",
    "spider_fl": f"aac-metrics-download && {METRICS_EXTRA} && {BASE}",
    "sbert_sim": "aac-metrics-download",
    "fer": f"aac-metrics-download && {BASE}",
    "fense": f"aac-metrics-download && {BASE}",
}


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of this project's required packages alone, with empty caches, no Java and no GPU."""
    for name in ("AAC_METRICS_CACHE_PATH", "FENSE_DATA"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("AAC_METRICS_JAVA_PATH", str(tmp_path / "java"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(java_parts.Jar, "packaged", lambda _: None)
    monkeypatch.setattr(java_parts, "packaged_java", lambda: None)
    java_parts._fits.cache_clear()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(machine, "DRIVER_GPUS", tmp_path / "driver")
    monkeypatch.setattr(machine, "find_spec", lambda _: None)
    monkeypatch.setattr(tracking, "find_spec", lambda _: None)
    monkeypatch.setattr(soundfile, "available_formats", lambda: {"WAV": "", "FLAC": "", "OGG": ""})
    for name in ("CUDA_VISIBLE_DEVICES", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("went to the network"))
    return tmp_path


def doctor(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, dict[str, Any]], str]:
    """Run the command, and return its exit code, the parts or needs by name, and what it said."""
    with pytest.raises(SystemExit) as end:
        cli.main(["doctor", *arguments, "--json"])
    printed, said = capsys.readouterr()
    found = json.loads(printed) if printed else {"parts": [], "needs": []}
    assert {row["name"] for row in found["parts"]} >= set(COMMANDS) | set(DEFAULT_METRICS)
    rows = found["needs"] if arguments else found["parts"]
    return int(end.value.code or 0), {row["name"]: row for row in rows}, said


def write_cached(hub: Path, model: str, file: str = "model.safetensors") -> None:
    """Lay a file of a model into the hub's cache."""
    folder = hub / f"models--{model.replace('/', '--')}"
    (folder / "snapshots" / "0").mkdir(parents=True, exist_ok=True)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text("0")
    write_model_file(folder / "snapshots" / "0" / file)


def write_model_file(path: Path) -> None:
    """Write a file of a model that can be read, with a tensor at most."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({"weight": torch.ones(2)}, path)
    else:
        path.write_text('{"model_type": "bert"}' if path.name == "config.json" else "")


def write_checker(path: Path) -> None:
    """Write a file of the layout of FENSE's error checker."""
    torch.save({"model_type": CHECKER_BASE, "num_classes": 6, "state_dict": {"clf.bias": torch.ones(6)}}, path)


def test_each_part_that_is_missing_comes_with_its_command(
    bare_machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, parts, _ = doctor(capsys)
    assert code == 0, "no experiment that lacks anything"
    assert {name: row["command"] for name, row in parts.items() if not row["is_there"]} == COMMANDS
    assert all(row["found"] and row["purpose"] for row in parts.values())
    assert "Java 8 to 13" in parts["Java"]["found"]
    assert str(bare_machine / CHECKER) in parts["FENSE's error checker"]["found"]
    cli_lines = table_lines(capsys)
    for name, command in COMMANDS.items():
        (row,) = [line for line in cli_lines if line.split("  ")[0].strip() == name]
        assert " missing " in row
        assert command not in row, "it is said once, in a line of its own"
        assert any(line.startswith(f"{command}  # ") and name in line for line in cli_lines)


def table_lines(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    with pytest.raises(SystemExit):
        cli.main(["doctor", *arguments])
    return [line.strip() for line in capsys.readouterr().out.splitlines()]


def test_parts_that_are_there_say_where(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    java = bare_machine / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.13\" 2021-10-19' >&2\n")
    java.chmod(0o755)
    write_checker(bare_machine / CHECKER)
    for jar in (java_parts.METEOR, java_parts.PTB_TOKENIZER):
        (bare_machine / jar.in_cache).parent.mkdir(parents=True)
        (bare_machine / jar.in_cache).touch()
    for model in (SBERT, CHECKER_BASE):
        write_cached(bare_machine / "hub", model)
    monkeypatch.setattr(machine, "find_spec", lambda _: object())
    device = SimpleNamespace(name="NVIDIA H100", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: device)
    _, parts, _ = doctor(capsys)
    assert [name for name, row in parts.items() if not row["is_there"]] == [
        "spice", "spider", "spider_fl", "SPICE's jars", "libsndfile",
    ]  # fmt: skip
    assert parts["Java"]["found"] == str(java)
    assert parts["METEOR's jar"]["found"] == str(bare_machine / java_parts.METEOR.in_cache)
    assert parts["SBERT"]["found"].startswith(str(bare_machine / "hub"))
    assert parts["GPU"]["found"].startswith("2: NVIDIA H100 (80 GiB), NVIDIA H100 (80 GiB); CUDA ")
    assert parts["faiss"]["found"].startswith("faiss-cpu 1.")
    assert not any(row["command"] for row in parts.values() if row["is_there"])


@pytest.mark.parametrize(
    ("cuda", "visible", "reason", "command"),
    [
        (
            None,
            None,
            "the driver has 2, which Ray would reserve; torch .* is built without CUDA",
            "pip install --force",
        ),
        ("12.8", None, "the driver has 2, which Ray would reserve; torch .* sees none", "nvidia-smi"),
        ("12.8", "", "hidden by CUDA_VISIBLE_DEVICES", "unset CUDA_VISIBLE_DEVICES"),
    ],
)
def test_a_gpu_that_torch_does_not_see(
    cuda: str | None,
    visible: str | None,
    reason: str,
    command: str,
    bare_machine: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(2):
        (bare_machine / "driver" / str(number)).mkdir(parents=True)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = machine.gpu()
    assert not found.is_there
    assert found.command.startswith(command)
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(found.found)


def test_an_experiment_that_has_all_it_needs(bare_machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The smoke experiment runs on a bare machine: nothing but Optuna is optional in it."""
    code, found, said = doctor(capsys, SMOKE, "search.searcher=random")
    assert code == 0
    assert "all that smoke needs is there" in said
    assert found["features.codec"]["found"].endswith("dac-soundscapes-16khz.safetensors")
    assert found["search.objective"]["is_there"]
    assert all(row["is_there"] for row in found.values())


LACKS = [
    (["search.searcher=optuna"], "search.searcher", "no such Python package", "pip install optuna"),
    (["search.objective=fense"], "search.objective", CHECKER, f"aac-metrics-download && {BASE}"),
    (["members.captioner-wide.monitor=meteor"], "members.captioner-wide.monitor", "meteor-1.5.jar", METRICS_EXTRA),
    (
        ["features.codec=dac-44khz"],
        "features.codec",
        "weights_44khz_8kbps_0.0.1.pth is missing",
        "python -m dac download --model_type 44khz --model_bitrate 8kbps",
    ),
    (
        ["features.codec=facebook/encodec_24khz"],
        "features.codec",
        "not in the hub's cache",
        "hf download facebook/encodec_24khz config.json model.safetensors",
    ),
    (
        ["members.retriever-bge.text_encoder=BAAI/bge-base-en-v1.5"],
        "members.retriever-bge.text_encoder.name",
        "neither a directory nor in the Hugging Face cache",
        "hf download BAAI/bge-base-en-v1.5",
    ),
    (
        ["members.captioner-wide.language_model=facebook/bart-base"],
        "members.captioner-wide.language_model",
        "neither a directory nor in the Hugging Face cache",
        "hf download facebook/bart-base",
    ),
    (
        ["members.retriever-bge.audio_encoder={backbone: convnext_tiny, pretrained: true}"],
        "members.retriever-bge.audio_encoder.pretrained",
        "neither a directory nor in the Hugging Face cache",
        "hf download timm/convnext_tiny.in12k_ft_in1k",
    ),
    (
        ["corpora.soundscapes={kind: clotho, root: /nowhere/clotho, splits: [train, validation, test]}"],
        "corpora.soundscapes.root",
        "no /nowhere/clotho",
        "put it there, or add corpora.soundscapes.root=PATH to the command",
    ),
    (
        ["exclusions.lists=[/nowhere/list.csv]"],
        "exclusions.lists.0",
        "no /nowhere/list.csv",
        "put it there, or add exclusions.lists.0=PATH to the command",
    ),
    (
        ["members.retriever-bge.audio_encoder=hf:MIT/ast-finetuned-audioset-10-10-0.4593"],
        "members.retriever-bge.audio_encoder.transformer",
        "neither a directory nor in the Hugging Face cache",
        "hf download MIT/ast-finetuned-audioset-10-10-0.4593",
    ),
    (["tracking=[wandb]"], "tracking", "wandb is missing", "pip install -e '.[wandb]'"),
    (
        ["members.fluency.resources={gpus_per_worker: 2}"],
        "members.fluency.resources",
        "asks for 2 GPU, the cluster has 0",
        "set RAY_ADDRESS to a cluster, or lower members.fluency.resources",
    ),
    (["search.gpus_per_trial=0.5"], "search.gpus_per_trial", "asks for 0.5 GPU", "lower search.gpus_per_trial"),
    (["prepare.gpus=1"], "prepare.gpus", "asks for 1 GPU", "lower prepare.gpus"),
]


@pytest.mark.parametrize(
    ("overrides", "key", "reason", "command"), LACKS, ids=[f"{k}-{n}" for n, (_, k, *_) in enumerate(LACKS)]
)
def test_a_need_that_is_not_met_is_named(
    overrides: list[str],
    key: str,
    reason: str,
    command: str,
    bare_machine: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("models.codec.weights.OFFICIAL_DIRECTORY", bare_machine)
    code, found, said = doctor(capsys, SMOKE, "search.searcher=random", *overrides)
    assert code == 1
    lacking = {name: row for name, row in found.items() if not row["is_there"]}
    assert list(lacking) == [key]
    assert reason in lacking[key]["found"]
    assert lacking[key]["command"] == command
    assert f"smoke lacks 1 of the {len(found)} things that it needs: {key}" in said


def test_needs_are_met_by_the_cache_by_directories_and_by_other_members(
    bare_machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in ("config.json", "vocab.txt", "model.safetensors"):
        write_cached(bare_machine / "hub", "facebook/bart-base", file)
        write_model_file(bare_machine / "own" / file)
    write_cached(bare_machine / "hub", "BAAI/bge-base-en-v1.5", "config.json")
    members = [
        "members.retriever-bge.text_encoder=BAAI/bge-base-en-v1.5",
        f"members.retriever-bert.text_encoder={bare_machine}/own",
        "members.captioner-wide.language_model=facebook/bart-base",
        f"members.finetuned={{kind: fluency-detector, init_from: fluency, text_encoder: {bare_machine}/gone,"
        " training: {epochs: 1, learning_rate: 1e-3}}",
        f"members.fluency.text_encoder.name={bare_machine}/gone",
    ]
    code, found, _ = doctor(capsys, SMOKE, "search.searcher=random", *members)
    assert code == 1
    lacking = [name for name, row in found.items() if not row["is_there"]]
    assert f"no {bare_machine}/gone" in found["members.fluency.text_encoder.name"]["found"]
    assert lacking == ["members.retriever-bge.text_encoder.name", "members.fluency.text_encoder.name"], (
        "a configuration alone is not a model, and a member that starts from another reads no published weights"
    )


def test_a_published_detector_needs_no_weights_of_its_encoder(
    bare_machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = bare_machine / CHECKER
    detector = f"members.fluency={{kind: fluency-detector, checkpoint: {checkpoint}, text_encoder: bert-base-uncased}}"
    code, found, _ = doctor(capsys, SMOKE, "search.searcher=random", detector)
    assert code == 1
    encoder = found["members.fluency.text_encoder.name"]
    assert "with config.json and tokenizer" in encoder["found"]
    assert encoder["command"].startswith("hf download bert-base-uncased --include")
    write_checker(checkpoint)
    for file in ("config.json", "vocab.txt"):
        write_cached(bare_machine / "hub", "bert-base-uncased", file)
    assert doctor(capsys, SMOKE, "search.searcher=random", detector)[0] == 0


def published_detector(machine: Path, checkpoint: Path) -> str:
    """Return the override for a detector of FENSE's checkpoint, the layout of whose encoder is in the cache."""
    for file in ("config.json", "vocab.txt"):
        write_cached(machine / "hub", CHECKER_BASE, file)
    return f"members.fluency={{kind: fluency-detector, checkpoint: '{checkpoint}', text_encoder: {CHECKER_BASE}}}"


def test_fenses_checkpoint_is_copied_to_where_the_experiment_expects_it(
    bare_machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = bare_machine / "my weights" / CHECKER
    override = published_detector(bare_machine, wanted)

    def command() -> str:
        _, found, _ = doctor(capsys, SMOKE, "search.searcher=random", override)
        return str(found["members.fluency.checkpoint"]["command"])

    copy = f"mkdir -p '{wanted.parent}' && cp {bare_machine / CHECKER} '{wanted}'"
    assert command() == f"aac-metrics-download && {copy}"
    write_checker(bare_machine / CHECKER)
    assert command() == copy
    subprocess.run(command(), shell=True, check=True)
    assert doctor(capsys, SMOKE, "search.searcher=random", override)[0] == 0


NO_WEIGHTS = [
    (b"", "found an empty file, expected weights"),
    (GIT_LFS + b"v1\noid sha256:0\nsize 438\n", "found a pointer of Git LFS"),
    (b"<!DOCTYPE html><html>", "cannot be read as weights"),
    (pickle.dumps({"state_dict": Path("x")}, protocol=2), "found pathlib.*, expected tensors"),
]


@pytest.mark.parametrize(("content", "reason"), NO_WEIGHTS, ids=["empty", "Git LFS", "a page", "a pickle"])
@pytest.mark.parametrize("kind", ["detector", "retriever", "model"])
def test_files_that_the_loaders_would_refuse_are_refused(
    kind: str, content: bytes, reason: str, bare_machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = bare_machine / "pytorch_model.bin"
    for layout in ("config.json", "vocab.json"):
        write_model_file(bare_machine / layout)
    key, *overrides = {
        "detector": ["fluency.checkpoint", published_detector(bare_machine, file)],
        "retriever": [
            "retriever-bge.audio_encoder.checkpoint",
            "features.log_mel={}",
            f"members.retriever-bge.audio_encoder={{checkpoint: {file}}}",
        ],
        "model": ["captioner-wide.language_model", f"members.captioner-wide.language_model={bare_machine}"],
    }[kind]
    file.write_bytes(content)
    code, found, _ = doctor(capsys, SMOKE, "search.searcher=random", *overrides)
    assert code == 1
    need = found[f"members.{key}"]
    assert not need["is_there"]
    assert re.search(f"{file}: .*{reason}", need["found"])


def test_a_checkpoint_of_another_layout_is_refused(bare_machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = bare_machine / "other.ckpt"
    torch.save({"model": {"a": torch.ones(2)}}, file)
    detector = published_detector(bare_machine, file)
    _, found, _ = doctor(capsys, SMOKE, "search.searcher=random", detector)
    assert "without model_type, num_classes, state_dict" in found["members.fluency.checkpoint"]["found"]


def test_a_model_needs_all_of_its_files(bare_machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = bare_machine / "bart"
    override = f"members.captioner-wide.language_model={folder}"

    def found() -> str:
        return str(doctor(capsys, SMOKE, "search.searcher=random", override)[1][key]["found"])

    key = "members.captioner-wide.language_model"
    folder.mkdir()
    assert found() == f"no config.json and no tokenizer and no weights in {folder}"
    for file in ("config.json", "vocab.json"):
        write_model_file(folder / file)
    index = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    write_model_file(folder / "model-1-of-2.safetensors")
    assert found() == f"no {folder}/model-2-of-2.safetensors, which model.safetensors.index.json names"
    write_model_file(folder / "model-2-of-2.safetensors")
    assert found() == str(folder)
    (folder / "vocab.json").unlink()
    (folder / "tokenizer.json").touch()
    assert found().startswith(f"{folder}/tokenizer.json: cannot be read")
    (folder / "config.json").write_text("{")
    assert found().startswith(f"{folder}/config.json: cannot be read")


def test_a_damaged_checker_of_the_metrics_is_no_checker(bare_machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bare_machine / CHECKER).touch()
    _, parts, _ = doctor(capsys)
    assert parts["FENSE's error checker"]["found"].startswith(f"{bare_machine / CHECKER}: found an empty file")
    assert parts["FENSE's error checker"]["command"] == f"rm {bare_machine / CHECKER} && aac-metrics-download"
    assert not parts["fense"]["is_there"]


def test_a_module_without_a_distribution_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_distributions", dict)
    assert machine.package("faiss", "search").is_there


def test_a_cluster_is_not_judged_by_this_machine(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    asks = ["search.searcher=random", "members.fluency.resources={gpus_per_worker: 2}", "prepare.gpus=1"]
    code, found, said = doctor(capsys, SMOKE, *asks)
    assert code == 0
    assert "members.fluency.resources" not in found
    assert "CPUs and GPUs are those of 10.0.0.1:6379; `enclap train FILE --plan` compares them" in said


def test_an_experiment_that_cannot_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["doctor", "experiments/absent.yaml"])
    assert end.value.code == 2
    assert "no such file" in capsys.readouterr().err


def test_it_starts_no_ray(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ray.init", lambda *_, **__: pytest.fail("started Ray"))
    assert any(line.startswith("search.objective") for line in table_lines(capsys, SMOKE))
    assert needs.needs_of.__module__ in sys.modules
