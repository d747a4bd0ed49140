"""Bad input: exit code 2 and a message before any work, or quarantine and the rest goes on."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import ray
import soundfile

from models.errors import CorpusError
from ray_jobs import cli, prepare, train
from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.run.directory import NotReadyError

from ..small_bundle import write_bundle
from .conftest import ROOT

SMOKE = str(ROOT / "experiments" / "smoke.yaml")
WITHOUT_TORCH = """
import sys
sys.modules.update(dict.fromkeys(["faiss", "ray", "torch", "transformers"]))  # importing them fails
from ray_jobs.cli import main
main()
"""


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("exported") / "bundle")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A corpus of three good clips a split."""
    for split in ("train", "validation", "test"):
        (tmp_path / "corpus" / split).mkdir(parents=True)
        rows = []
        for number in range(3):
            t = np.arange(16_000 + 4000 * number) / 16_000
            tone = np.sin(600 * (number + 1) * t)
            soundfile.write(tmp_path / "corpus" / split / f"{split}{number}.wav", tone, 16_000)
            rows.append({"file_name": f"{split}{number}.wav", "caption_1": f"tone {number}", "caption_2": "a tone"})
        pd.DataFrame(rows).to_csv(tmp_path / "corpus" / f"{split}.csv", index=False)
    return tmp_path / "corpus"


def experiment(folder: Path, *overrides: str) -> Experiment:
    corpus = f"corpora={{soundscapes: {{kind: folder, root: {folder}, splits: [train, validation, test]}}}}"
    return load_experiment(SMOKE, [f"storage_path={folder.parent / 'runs'}", corpus, *overrides])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "experiments/absent.yaml"], "no such file"),
        (["train", SMOKE, "serach.trials=1"], "did you mean 'search'?"),
        (["caption", "nowhere", SMOKE], "bundle.json: no such file"),
        (["caption", "nowhere", "absent.wav"], "absent.wav: no such file or directory"),
        (["retrieve", "nowhere", "rain", "tests"], "no audio files found"),
        (["retrieve", "nowhere", "tests", "--queries", "absent.csv"], "absent.csv: no such file"),
        (["evaluate", "nowhere", "tests"], "test.csv"),
        (["evaluate", "nowhere", "tests", "--ap-over", "all"], "is for the queries of --relevance"),
        (["leaderboard", "nowhere", "--csv", "tests"], "'tests' is a directory"),
        (["leaderboard", SMOKE, "--csv", SMOKE], "is one of the files to read"),
        (["compare", SMOKE, SMOKE, "--csv", SMOKE], "is one of the files to read"),
        (["evaluate", "nowhere", "tests", "--output", "tests"], "'tests' is a directory"),
        (["caption", "nowhere", SMOKE, "--submission", "tests"], "'tests' is a directory"),
        (["caption", "nowhere", SMOKE, "--output", "tests"], "'tests' is a directory"),
        (["retrieve", "nowhere", "tests", "--queries", SMOKE, "--submission", "tests"], "'tests' is a directory"),
        (["fluency", "nowhere", SMOKE, "--output", "tests"], "'tests' is a directory"),
    ],
)
def test_exit_code_2_before_any_work(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "nowhere", "tests"], "test.csv"),
        (["evaluate", "BUNDLE", "FOLDER", "test", "--output", "FOLDER/test.csv"], "is one of the files to read"),
        (["evaluate", "BUNDLE", "FOLDER", "test", "--output", "/proc/a.json"], "/proc/a.json: cannot be written"),
        (["evaluate", "BUNDLE", "FOLDER", "test", "--output", "a.parquet"], "is the file of --output, too"),
        (["fluency", "BUNDLE", "FOLDER/test.csv", "--output", "FOLDER/test.csv"], "is one of the files to read"),
        (["fluency", "BUNDLE", "FOLDER/test.csv", "--output", "/proc/a.json"], "/proc/a.json: cannot be written"),
        (["caption-collection", "BUNDLE", "FOLDER", "--output", "BUNDLE/captions"], "is in the bundle"),
        (["similarity", "nowhere"], "nowhere"),
        (["reproduce", "nowhere"], "nowhere"),
    ],
)
def test_files_are_refused_before_torch_is_loaded(
    arguments: list[str], message: str, folder: Path, bundle: Path
) -> None:
    before = {path: path.read_bytes() for path in (folder / "test.csv", Path(SMOKE))}
    places = {"BUNDLE": str(bundle), "FOLDER": str(folder)}
    arguments = [re.sub("BUNDLE|FOLDER", lambda found: places[found[0]], argument) for argument in arguments]
    command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr.replace("\n", " ")
    assert {path: path.read_bytes() for path in before} == before


def test_one_bad_clip_is_quarantined_and_the_rest_goes_on(folder: Path, local_ray: None) -> None:
    (folder / "train" / "train0.wav").write_bytes(b"RIFF\x00\x00garbage")
    (folder / "train" / "train1.wav").unlink()
    table = pd.read_csv(folder / "test.csv")
    table.loc[0, ["caption_1", "caption_2"]] = ["  ", None]
    table.to_csv(folder / "test.csv", index=False)
    prepare.run(experiment(folder))
    features = folder.parent / "runs" / "smoke" / "features" / "soundscapes"
    quarantine = pd.read_parquet(features / "quarantine.parquet").set_index("clip_id")["reason"]
    assert set(quarantine.index) == {"train0", "train1", "test0"}
    assert "train0.wav" in quarantine["train0"]
    assert pd.read_feather(features / "train" / "00000.arrow")["clip_id"].tolist() == ["train2"]
    assert len(pd.read_feather(features / "test" / "00000.arrow")) == 2
    # A mended file is taken up by the same command; what was good is not made again.
    kept = (features / "validation" / "00000.arrow").stat().st_mtime_ns
    soundfile.write(folder / "train" / "train0.wav", np.sin(np.arange(16_000) / 9), 16_000)
    (features / ".done.json").unlink()
    prepare.run(experiment(folder))
    assert pd.read_feather(features / "train" / "00000.arrow")["clip_id"].tolist() == ["train0", "train2"]
    assert (features / "validation" / "00000.arrow").stat().st_mtime_ns == kept


def test_a_split_without_usable_clips(folder: Path, local_ray: None) -> None:
    for file in (folder / "validation").iterdir():
        soundfile.write(file, np.zeros(16_000), 16_000)
    with pytest.raises(CorpusError, match=r"soundscapes/validation: no usable clip(.|\n)*silence(.|\n)*\.parquet says"):
        prepare.run(experiment(folder))
    features = folder.parent / "runs" / "smoke" / "features" / "soundscapes"
    assert len(pd.read_parquet(features / "quarantine.parquet")) == 3


def _unlink(file: Path) -> None:
    file.unlink()


def _replace_by_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "dry_run", "reason"),
    [
        (_unlink, True, "test.csv line 2: audio file is missing"),
        (_unlink, False, "test.csv line 2: audio file is missing"),
        (_replace_by_folder, False, "test.csv line 2: audio file is missing"),
        (_empty, True, "test0.wav: "),
    ],
    ids=["missing, dry run", "missing", "directories", "empty, dry run"],
)
def test_a_split_that_is_seen_to_be_empty_is_refused_before_any_clip_is_encoded(
    spoil: Callable[[Path], None],
    dry_run: bool,
    reason: str,
    folder: Path,
    local_ray: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for file in (folder / "test").iterdir():
        spoil(file)
    with pytest.raises(CorpusError) as refused:
        prepare.run(experiment(folder), dry_run=dry_run)
    first, *reasons = str(refused.value).splitlines()
    assert first == "soundscapes/test: no usable clip, expected at least one; 3 set aside:"
    assert len(reasons) == 3
    assert reason in reasons[0]
    assert "│" not in capsys.readouterr().out
    assert not (folder.parent / "runs").exists()


def test_a_dry_run_says_that_it_could_measure_nothing(
    folder: Path, local_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in folder.rglob("*.wav"):
        soundfile.write(file, np.zeros(16_000), 16_000)
    prepare.run(experiment(folder), dry_run=True)
    printed = capsys.readouterr()
    assert "soundscapes/train: none of the clips that were decoded can be used, the first: " in printed.err
    assert "features and time: unknown" in printed.err
    assert "0 bytes" not in printed.out


@pytest.mark.parametrize(
    ("content", "message"),
    [("file_name,caption_1\n", "test.csv"), ("name,text\na.wav,b\n", "file_name"), (None, "test.csv")],
    ids=["empty", "columns", "missing"],
)
def test_unusable_tables_stop_before_work(folder: Path, content: str | None, message: str, local_ray: None) -> None:
    (folder / "test.csv").unlink()
    if content:
        (folder / "test.csv").write_text(content)
    with pytest.raises(CorpusError, match=message):
        prepare.run(experiment(folder))
    assert not (folder.parent / "runs").exists()


def test_missing_codec_weights_stop_before_work(folder: Path, local_ray: None) -> None:
    with pytest.raises(ConfigError, match=r"features\.codec: .*nowhere\.pth"):
        prepare.run(experiment(folder, "features.codec=/nowhere.pth"))


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (["prepare"], ["root", "codec"]),
        (["prepare", "--dry-run"], ["root", "codec"]),
        (["train"], ["checkpoint"]),
        (["pipeline"], ["root", "codec", "checkpoint"]),
    ],
)
def test_all_missing_files_are_named_before_ray_is_started(
    command: list[str], named: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(cli, "join_cluster", lambda: pytest.fail("Ray is started"))
    gone = {
        "root": f"corpora.more={{kind: folder, root: {tmp_path}/sounds, splits: [train]}}",
        "codec": f"features.codec={tmp_path}/gone.pth",
        "checkpoint": f"members.captioner-deep.checkpoint={tmp_path}/gone.ckpt",
    }
    with pytest.raises(SystemExit) as stopped:
        cli.main([*command, SMOKE, f"storage_path={tmp_path / 'runs'}", *gone.values()])
    assert stopped.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    keys = {"root": "corpora.more.root: no", "codec": "features.codec: ", "checkpoint": "captioner-deep.checkpoint: no"}
    assert [name for name, key in keys.items() if key in said] == named
    assert not (tmp_path / "runs").exists()


FIRST = [
    (["train"], "run `enclap prepare`"),
    (["search"], "run `enclap train`"),
    (["combine"], "run `enclap search`"),
    (["combine", "--members", "retriever-bge"], "run `enclap combine`"),
    (["refit"], "refit: found false, expected true"),
    (["export"], "run `enclap combine`"),
]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        *FIRST,
        *(([*command, "time_limit=1h"], message) for command, message in FIRST),
        (["refit", "refit=true"], "run `enclap combine`"),  # which has no time limit
    ],
)
def test_what_must_come_first_is_said_before_ray_is_started_and_nothing_is_left(
    command: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(cli, "join_cluster", lambda: pytest.fail("Ray is started"))
    with pytest.raises(SystemExit) as stopped:
        cli.main([command[0], SMOKE, *command[1:], "name=typo", f"storage_path={tmp_path / 'runs'}"])
    assert stopped.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "runs").exists()


def test_published_weights_may_be_on_the_nodes_of_a_cluster_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = load_experiment(SMOKE, [f"storage_path={tmp_path}", f"members.captioner-deep.checkpoint={tmp_path}/gone"])
    assert [lack.name for lack in train.missing(gone)] == ["members.captioner-deep.checkpoint"]
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert not train.missing(gone)
    monkeypatch.setenv("RAY_ADDRESS", "local")  # Ray's word for this machine
    assert train.missing(gone)


def test_jobs_say_which_job_comes_first(folder: Path, local_ray: None) -> None:
    with pytest.raises(NotReadyError, match="enclap prepare"):
        train.run(experiment(folder))


def test_a_member_that_could_never_start_is_refused(folder: Path, local_ray: None) -> None:
    impossible = experiment(folder, "members.fluency.resources={workers: 64}")
    with pytest.raises(ConfigError, match=r"members\.fluency\.resources asks for 64 CPU"):
        train.check_resources(impossible)
