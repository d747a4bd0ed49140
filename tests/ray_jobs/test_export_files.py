"""What an export writes: the same bytes every time, weights in the dtype that is asked for, a folder for the hub."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, ModelCardData, metadata_load
from safetensors.torch import load_file, save_file

from models import Ensemble
from models.commands.verify import run as verify
from models.ensemble.checksums import FILES, read_list
from models.ensemble.self_test import CLIP, member_scores
from models.ensemble.stored_dtype import StoredDtype, store_as
from models.files import CheckpointError
from ray_jobs import export
from ray_jobs.experiment.config import Experiment
from ray_jobs.run.directory import RunDirectory

from .exportable_run import write_exportable_run

WEIGHTS = "members/wren/model.safetensors"


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return write_exportable_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def bundle(experiment: Experiment) -> Path:
    export.run(experiment, archive=True)
    return RunDirectory(experiment).bundle


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("model.safetensors", None, "no such file; copy the file that was trained, or remove "),
        ("model.safetensors", "", "found SHA-256 e3b0c44298fc, expected"),
        ("config.json", None, "no such file; expected the directory of a trained retriever; copy the member again"),
        ("config.json", "{", "not JSON"),
        ("text_encoder/config.json", "{", "cannot be read"),
    ],
)
def test_a_damaged_member_is_named_where_it_lies(tmp_path: Path, name: str, content: str | None, told: str) -> None:
    """Not as its copy in the bundle, which is removed after the error."""
    experiment = write_exportable_run(tmp_path)
    run = RunDirectory(experiment)
    file = run.member("wren") / name
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(CheckpointError) as refused:
        export.run(experiment)
    said = str(refused.value)
    assert said.startswith(f"{file if name != 'text_encoder/config.json' else file.parent}: {told}")
    assert "train" in said
    assert ".partial" not in said
    assert not [*run.root.glob(".bundle*")]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_run_exported_twice_gives_the_same_bytes(
    experiment: Experiment, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, archived = contents(bundle), bundle.with_suffix(".zip").read_bytes()
    shutil.move(bundle, tmp_path / "moved")
    bundle.with_suffix(".zip").unlink()
    for member in (RunDirectory(experiment).root / "members").rglob("*"):
        member.touch()  # times are no part of what a run is
        if member.suffix == ".safetensors":
            member.chmod(0o600)  # as earlier versions left it
    export.run(experiment, archive=True)
    assert contents(bundle) == before
    assert bundle.with_suffix(".zip").read_bytes() == archived
    assert len({path.stat().st_mode for path in bundle.rglob("*") if path.is_file()}) == 1, "others may read all of it"
    verify(bundle)
    assert "and the same caption" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("dtype", "stored", "close"), [("bf16", torch.bfloat16, 2**-8), ("fp16", torch.float16, 2**-11)]
)
def test_weights_are_stored_in_a_dtype_and_answers_hardly_change(
    experiment: Experiment, bundle: Path, dtype: StoredDtype, stored: torch.dtype, close: float
) -> None:
    export.run(experiment, dtype=dtype)
    smaller = bundle.with_name(f"bundle-{dtype}")
    verify(smaller)
    full, small = load_file(bundle / WEIGHTS), load_file(smaller / WEIGHTS)
    for name, tensor in small.items():
        keeps = tensor.ndim < 2 or name.startswith("metric.") or tensor.dtype == torch.int64
        assert tensor.dtype == (full[name].dtype if keeps else stored), name
        torch.testing.assert_close(tensor.to(full[name].dtype), full[name], rtol=close, atol=2**-24)
    assert {tensor.dtype for tensor in load_file(smaller / "codec" / "codec.safetensors").values()} == {
        tensor.dtype for tensor in load_file(bundle / "codec" / "codec.safetensors").values()
    }
    whole, half = (Ensemble.load(one, device="cpu") for one in (bundle, smaller))
    assert {one.dtype for one in half.retrievers["wren"].parameters()} == {torch.float32}
    for one in (whole, half):
        one.index([one.directory / CLIP, _noise(bundle.parent)])
    texts = ["a dog barks", "rain falls on a roof", "a bell rings"]
    np.testing.assert_allclose(half.similarity(texts), whole.similarity(texts), atol=20 * close)
    for name, scores in member_scores(whole, texts).items():  # by captioners and the fluency detector, too
        np.testing.assert_allclose(member_scores(half, texts)[name], scores, atol=20 * close, err_msg=name)
    assert f"stored as {dtype}" in (smaller / "README.md").read_text(encoding="utf-8")


def _noise(folder: Path) -> Path:
    path = folder / "noise.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 32_000), 16_000)
    return path


def test_a_matrix_beyond_the_range_of_fp16_stays(tmp_path: Path) -> None:
    weights = {"large.weight": torch.full((2, 2), 1e6), "weight": torch.ones(2, 2), "metric.factor": torch.eye(2)}
    save_file(weights, tmp_path / "model.safetensors")
    store_as("fp16", tmp_path / "model.safetensors")
    found = {name: tensor.dtype for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    assert found == {"large.weight": torch.float32, "weight": torch.float16, "metric.factor": torch.float32}


def test_the_hub_takes_the_folder_as_it_is(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `upload_folder` would send is the bundle without data files; downloaded, it verifies."""
    cards: list[str] = []
    sent: dict[str, bytes] = {}

    def receive(_: HfApi, operations: list[CommitOperationAdd], **__: object) -> None:
        for one in operations:
            with one.as_file() as file:
                sent[one.path_in_repo] = file.read()

    monkeypatch.setattr("huggingface_hub.hf_api.is_xet_available", lambda: False)
    monkeypatch.setattr(HfApi, "_validate_yaml", lambda _, content, **__: cards.append(content))
    monkeypatch.setattr(HfApi, "create_commit", receive)
    HfApi(token="hf_none").upload_folder(repo_id="someone/ensemble", folder_path=bundle)
    data = ModelCard(cards[0]).data
    assert isinstance(data, ModelCardData)
    assert data.eval_results
    assert metadata_load(bundle / "README.md") == data.to_dict()
    assert {*read_list(bundle), FILES} <= {*sent}
    assert not [name for name in sent if name.endswith((".parquet", ".arrow"))], "the hub warns of data in a model"
    assert not [name for name, content in sent.items() if str(bundle.parents[2]).encode() in content]
    for name, content in {**sent, ".gitattributes": b"*.safetensors filter=lfs", ".cache/huggingface/a": b""}.items():
        target = tmp_path / "downloaded" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    verify(tmp_path / "downloaded")
