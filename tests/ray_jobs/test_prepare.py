"""prepare: every kind of audio file and caption that users bring, and the promises about shards."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import ray
import soundfile

from ray_jobs import prepare
from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.features.dataset import read_features, require_features
from ray_jobs.features.files import FeaturesError
from ray_jobs.features.shards import ShardEncoder, ShardMaker, ShardReader, plan_shards, write_encoded
from ray_jobs.run.directory import RunDirectory

from ..models.encoders.published_layouts import save_published
from .conftest import ROOT

SMOKE = str(ROOT / "experiments" / "smoke.yaml")
RATE = 16_000


def tone(seconds: float = 0.6, rate: int = RATE, channels: int = 1, level: float = 0.3) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    return level * np.stack([np.sin(2 * np.pi * (220 + 40 * c) * t) for c in range(channels)], 1)


def sound(rate: int = RATE, channels: int = 1, subtype: str | None = None, **how: float) -> Callable[[Path], None]:
    return lambda path: soundfile.write(path, tone(rate=rate, channels=channels, **how), rate, subtype=subtype)


def samples(make: Callable[[], np.ndarray]) -> Callable[[Path], None]:
    return lambda path: soundfile.write(path, make(), RATE, subtype="FLOAT")


def same_sound(path: Path) -> None:
    soundfile.write(path, (32_000 * tone(0.8)).astype(np.int16), RATE)


def cut(share: float) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        soundfile.write(path, tone(2.0), RATE)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    return make


def lying_header(path: Path) -> None:
    """A WAV whose data chunk says ten times what is there."""
    soundfile.write(path, tone(), RATE)
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    (size,) = struct.unpack_from("<I", content, at)
    struct.pack_into("<I", content, at, 10 * size)
    path.write_bytes(bytes(content))


def flac_named_wav(path: Path) -> None:
    soundfile.write(path, tone(), RATE, format="FLAC")


def content(data: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(data)

    return make


@dataclass(frozen=True)
class Case:
    """A file `name` as `make` writes it; `reason` is a part of what the quarantine says, None for a good clip."""

    name: str
    make: Callable[[Path], None]
    reason: str | None = None
    captions: tuple[str, ...] = ("a tone",)


CASES = [
    Case("wav-8k.wav", sound(8_000)),
    Case("wav-8bit.wav", sound(subtype="PCM_U8")),
    Case("wav-24bit.wav", sound(subtype="PCM_24")),
    Case("wav-float.wav", sound(subtype="FLOAT")),
    Case("wav-double.wav", sound(subtype="DOUBLE")),
    Case("wav-192k.wav", sound(192_000)),
    Case("wav-8-channels.wav", sound(channels=8)),
    Case("flac-96k-stereo.flac", sound(96_000, channels=2)),
    Case("ogg.ogg", sound(44_100)),
    Case("mp3.mp3", sound(44_100, seconds=1.0)),
    Case("flac-named.wav", flac_named_wav),
    Case("ünï cödé 声.wav", sound()),
    Case("dots.wav.02 (a:b).wav", sound()),
    Case("quiet.wav", sound(level=1e-4)),
    Case("slightly-clipped.wav", samples(lambda: np.clip(1.02 * tone(level=1.0), -1, 1))),
    Case("some-offset.wav", samples(lambda: tone() + 0.1)),
    Case("some-captions.wav", sound(), captions=("  ", "a tone")),
    Case("clipped.wav", samples(lambda: np.clip(50 * tone(), -1, 1)), "clipped"),
    Case("offset.wav", samples(lambda: 0.01 * tone() + 0.8), "offset"),
    Case("silence.wav", samples(lambda: np.zeros((RATE, 1))), "silence"),
    Case("constant.wav", samples(lambda: np.full((RATE, 1), 0.2)), "silence"),
    Case("nan.wav", samples(lambda: np.where(np.arange(RATE)[:, None] == 99, np.nan, 0.1)), "NaN or infinite"),
    Case("infinite.wav", samples(lambda: np.where(np.arange(RATE)[:, None] == 99, np.inf, 0.1)), "NaN or infinite"),
    Case("no-samples.wav", samples(lambda: np.zeros((0, 1))), "holds no samples"),
    Case("zero-bytes.wav", Path.touch, "found an empty file"),
    Case("text.wav", content(b"hello"), "cannot be decoded"),
    Case("header-only.wav", content(b"RIFF\x24\x00\x00\x00WAVEfmt "), "cannot be decoded"),
    Case("half.flac", cut(0.5), "truncated|cannot be decoded"),
    Case("truncated.wav", cut(0.5), "truncated"),
    Case("lying.wav", lying_header, "truncated"),
    Case("missing.wav", lambda path: None, "missing"),
    Case("folder.wav", Path.mkdir, "missing|not a file"),
    Case("blank-caption.wav", sound(), "no caption", (" \t ",)),
    Case("long-caption.wav", sound(), "9,999 characters", ("a " * 5000,)),
    Case("../outside.wav", lambda path: None, "leads out"),
    Case("/etc/hostname", lambda path: None, "leads out"),
    Case("C:\\sound.wav", lambda path: None, "leads out"),
]


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def write_corpus(root: Path, cases: list[Case], split: str = "train") -> None:
    (root / split).mkdir(parents=True)
    for case in cases:
        case.make(root / split / case.name)
    most = max(len(case.captions) for case in cases)
    rows = [[case.name, *case.captions, *[""] * (most - len(case.captions))] for case in cases]
    columns = ["file_name", *(f"caption_{number + 1}" for number in range(most))]
    pd.DataFrame(rows, columns=columns).to_csv(root / f"{split}.csv", index=False)


def test_waveforms_are_made_for_features_that_are_there(local_ray: None, tmp_path: Path) -> None:
    """An encoder of transformers that is added encodes no clip again; a second run makes nothing."""
    root = tmp_path / "corpus"
    write_corpus(root, [CASES[0], CASES[1]])
    prepare.run(experiment(root))
    folder = features_of(root) / "train"
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.arrow")}
    published = save_published("clap", tmp_path / "clap")
    encoder = {"backbone": f"hf:{published}", "sample_rate": 48_000}
    changed = experiment(root, f"members.retriever-bge.audio_encoder={json.dumps(encoder)}")
    with pytest.raises(FeaturesError, match="no waveforms at 48000 Hz"):
        require_features(RunDirectory(changed))
    wrong = experiment(root, f"members.retriever-bge.audio_encoder='hf:{published}'")
    with pytest.raises(ConfigError, match=r"members\.retriever-bge: audio_encoder\.sample_rate: found 16000"):
        prepare.run(wrong)
    prepare.run(changed)
    require_features(RunDirectory(changed))
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.arrow")} == before
    found = read_features([folder]).hearing(48_000)
    for path, seconds, waveform in zip(found.paths, found.durations_s, found.audio, strict=True):
        assert len(waveform) == pytest.approx(48_000 * seconds, abs=200), path
        assert waveform.std() > 1000
    made = {path: path.stat().st_mtime_ns for path in (folder / "waveforms").rglob("*.arrow")}
    prepare.run(changed)
    assert {path: path.stat().st_mtime_ns for path in (folder / "waveforms").rglob("*.arrow")} == made


def experiment(root: Path, *overrides: str) -> Experiment:
    corpus = f"corpora={{soundscapes: {{kind: folder, root: {root}, splits: [train]}}}}"
    return load_experiment(SMOKE, [f"storage_path={root.parent / 'runs'}", corpus, *overrides])


def features_of(root: Path) -> Path:
    return root.parent / "runs" / "smoke" / "features" / "soundscapes"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:
    """One corpus of all cases and a duplicate, prepared once."""
    root = tmp_path_factory.mktemp("cases") / "corpus"
    write_corpus(root, [*CASES, CASES[0]])
    prepare.run(experiment(root))
    return features_of(root)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_file_is_used_or_set_aside_with_a_reason(prepared: Path, case: Case) -> None:
    used = pd.concat(pd.read_feather(shard) for shard in prepared.glob("train/*.arrow"))
    clips = used[used["path"].str.endswith("/" + case.name)]
    quarantine = pd.read_parquet(prepared / "quarantine.parquet")
    reasons = quarantine.loc[quarantine["path"].str.endswith(case.name), "reason"]
    reasons = reasons[~reasons.str.contains("duplicate")]
    if case.reason is None:
        assert len(clips) == 1
        assert clips.iloc[0].captions.tolist() == ["a tone"]
        assert len(reasons) == 0
    else:
        assert len(clips) == 0
        assert len(reasons) == 1
        assert pd.Series(reasons.iloc[0]).str.contains(case.reason).item(), reasons.iloc[0]


def test_a_name_that_comes_twice_is_set_aside(prepared: Path) -> None:
    quarantine = pd.read_parquet(prepared / "quarantine.parquet")
    assert quarantine["reason"].str.contains("duplicate").sum() == 1


def plain_corpus(root: Path, clips: int = 10) -> None:
    write_corpus(root, [Case(f"{number}.wav", sound(seconds=0.5 + 0.1 * number)) for number in range(clips)])


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.arrow"))}


def test_stopped_and_started_again_missing_shards_are_made_with_the_same_bytes(tmp_path: Path, local_ray: None) -> None:
    root = tmp_path / "corpus"
    plain_corpus(root)
    chosen = experiment(root, "features.clips_per_shard=4")
    prepare.run(chosen)
    target = features_of(root)
    before = digests(target / "train")
    assert len(before) == 3
    kept = (target / "train" / "00000.arrow").stat().st_mtime_ns
    for lost in ("00001.arrow", "00002.arrow"):
        (target / "train" / lost).unlink()
    (target / "train" / ".00001.arrow.1.partial").write_bytes(b"half")
    (target / ".done.json").unlink()
    prepare.run(chosen)
    assert digests(target / "train") == before
    assert (target / "train" / "00000.arrow").stat().st_mtime_ns == kept
    assert not list((target / "train").glob(".*.partial"))


@pytest.mark.parametrize("damage", ["cut off", "of an earlier version", "missing", "of other clips"])
def test_finished_features_that_cannot_be_read_are_made_again(damage: str, tmp_path: Path, local_ray: None) -> None:
    root = tmp_path / "corpus"
    plain_corpus(root)
    chosen = experiment(root, "features.clips_per_shard=4")
    prepare.run(chosen)
    train = features_of(root) / "train"
    before, kept = digests(train), (train / "00000.arrow").stat().st_mtime_ns
    damaged = train / "00001.arrow"
    if damage == "cut off":
        damaged.write_bytes(damaged.read_bytes()[:-10])
        with pytest.raises(FeaturesError, match=r"train/00001\.arrow: found a file that was cut off"):
            read_features([train])
    elif damage == "missing":
        damaged.unlink()
        with pytest.raises(FeaturesError, match=r"train/00001\.arrow: is missing; `enclap prepare` makes it again"):
            read_features([train])
    elif damage == "of other clips":
        shutil.copy(train / "00002.arrow", damaged)
        with pytest.raises(FeaturesError, match=r"train/00001\.arrow: is not the file that was made; `enclap prepare`"):
            read_features([train])
    else:
        for shard in train.glob("*.arrow"):
            shard.rename(shard.with_suffix(".parquet"))
        with pytest.raises(FeaturesError, match=r"features/soundscapes/train: .* earlier version"):
            require_features(RunDirectory(chosen))
    prepare.run(chosen)
    assert digests(train) == before
    assert not list(train.glob("*.parquet"))
    if damage != "of an earlier version":
        assert (train / "00000.arrow").stat().st_mtime_ns == kept
    require_features(RunDirectory(chosen))


def test_three_stages_make_what_one_makes(tmp_path: Path) -> None:
    """Readers, encoders and writers, as on GPUs, against the one actor that does all."""
    root = tmp_path / "corpus"
    plain_corpus(root, 4)
    features = experiment(root).features
    table = experiment(root).corpora["soundscapes"].read("train").clips
    made = []
    for name in ("one", "two"):
        (shard,) = plan_shards(table, features, tmp_path / name)
        made.append((shard, {"shard": shard.to_json()}))
    ShardMaker(features)(made[0][1])
    encoder = ShardEncoder(features)
    write_encoded(encoder(ShardReader(features, encoder.codec.sample_rate)(made[1][1])), features)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_codes_take_a_quarter_of_the_int64_files_that_enclap_writes(prepared: Path) -> None:
    stored = plain = 0
    for shard in prepared.glob("train/*.arrow"):
        codes = pa.ipc.open_file(shard).read_all()["codes"].combine_chunks()
        stored += codes.nbytes
        plain += sum(8 * len(one) * len(one[0]) + 128 for one in codes.to_pylist())
    assert 0 < stored * 4 <= plain


def test_evaluation_clips_are_not_trained_on_and_overlaps_are_reported(
    tmp_path: Path, local_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Freesound id 007 is another than 7; the same sound under another name and format is found by its samples."""
    known, other = tmp_path / "known" / "corpus", tmp_path / "other" / "corpus"
    write_corpus(known, [Case("a.wav", sound()), Case("b.wav", same_sound)], "test")
    others = [Case(f"{number}.wav", sound(seconds=1 + number / 10)) for number in range(4)]
    write_corpus(other, [*others, Case("b2.flac", same_sound)])
    for folder, split, ids in [(known, "test", ["7", "8"]), (other, "train", ["7", "007", "9", "10", "11"])]:
        sheet = pd.read_csv(folder / f"{split}.csv")
        sheet.assign(freesound_id=ids).to_csv(folder / f"{split}.csv", index=False)
    (tmp_path / "excluded.csv").write_text("sound_id\n9\n")
    corpora = (
        f"corpora={{soundscapes: {{kind: folder, root: {known}, splits: [test]}}, "
        f"other: {{kind: folder, root: {other}, splits: [train]}}}}"
    )
    prepare.run(
        load_experiment(
            SMOKE,
            [
                f"storage_path={tmp_path / 'runs'}",
                corpora,
                f"exclusions.lists=[{tmp_path / 'excluded.csv'}]",
            ],
        )
    )
    features = tmp_path / "runs" / "smoke" / "features"
    used = pd.concat(pd.read_feather(shard) for shard in (features / "other" / "train").glob("*.arrow"))
    assert used["clip_id"].tolist() == ["1", "3", "b2"]
    reasons = pd.read_parquet(features / "other" / "quarantine.parquet").set_index("clip_id")["reason"]
    assert reasons["0"] == "excluded from training: Freesound id 7 is in soundscapes/test"
    assert reasons["2"] == "excluded from training: Freesound id 9 is in excluded.csv"
    assert "other: 2 of 5 training clips excluded" in capsys.readouterr().err
    overlap = pd.read_parquet(features / "overlaps.parquet")
    assert overlap[["by", "corpus_a", "clip_a", "corpus_b", "clip_b"]].to_numpy().tolist() in (
        [["audio_sha256", "soundscapes", "b", "other", "b2"]],
        [["audio_sha256", "other", "b2", "soundscapes", "b"]],
    )


def test_dry_run_says_what_it_would_cost_and_writes_nothing(
    tmp_path: Path, local_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "corpus"
    write_corpus(root, [Case("good.wav", sound()), Case("text.wav", content(b"x"), "")])
    prepare.run(experiment(root), dry_run=True)
    printed = capsys.readouterr()
    assert "text.wav: cannot be decoded" in printed.err
    row = next(line for line in printed.out.splitlines() if "soundscapes" in line and "train" in line and "│" in line)
    assert [cell.strip() for cell in row.strip("│ ").split("│")][2:4] == ["1", "1"]
    assert not (tmp_path / "runs").exists()
