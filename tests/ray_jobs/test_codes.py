"""enclap codes: a run's shards become tables and a chart; bad input is named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import mutual_info_score

from corpora.soundscapes.sampling import sample_scenes
from models.errors import InputError
from ray_jobs.codes import AllCodecs
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.features.files import FeaturesError, write_shard
from ray_jobs.reporting import codes
from ray_jobs.reporting.codes import codec_use
from ray_jobs.run.directory import MARKER, NotReadyError, RunDirectory, mark_done

from .conftest import ROOT, command

SIZES = {"train": 48, "validation": 16, "test": 16}  # of experiments/smoke.yaml
CODEC = {"codec": "a-codec", "weights_sha256": 64 * "a", "sample_rate": 16_000, "hop_length": 640}
Make = Callable[..., RunDirectory]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make a run that is prepared, whose first codebook tells the first event of a clip."""

    def made(name: str = "a", entries: int = 64, codebooks: int = 3, **codec: Any) -> RunDirectory:
        where = [f"storage_path={tmp_path}", f"name={name}"]
        directory = RunDirectory(load_experiment(ROOT / "experiments" / "smoke.yaml", where))
        directory.write_experiment()
        rng = np.random.default_rng(0)
        known = {**CODEC, "codebooks": codebooks, "codebook_size": entries, **codec}
        for split, scenes in sample_scenes(SIZES, 0).items():
            kinds = sorted({scene.events[0].kind for scene in scenes})
            clips = [
                {
                    "clip_id": scene.clip_id, "path": "", "freesound_id": "", "youtube_id": "", "audio_sha256": "",
                    "duration_s": 1.0, "captions": ["a sound"], "log_mel": np.zeros((2, 4)),
                    "codes": _codes(kinds.index(scene.events[0].kind), entries, codebooks, rng),
                }
                for scene in scenes
            ]  # fmt: skip
            for at in range(0, len(clips), 10):
                shard = directory.features("soundscapes", split) / f"{at // 10:05d}.arrow"
                write_shard(shard, clips[at : at + 10], {"codec": known, "inputs": ""}, codebooks, 4)
        mark_done(directory.features("soundscapes"), directory.features_inputs())
        return directory

    return made


def _codes(kind: int, entries: int, codebooks: int, rng: np.random.Generator) -> np.ndarray:
    found = rng.integers(0, entries // 2, (rng.integers(20, 40), codebooks))
    found[:, 0] = kind + (entries // 2) * (found[:, 0] % 2)
    return found


def all_codes(directory: RunDirectory, splits: list[str]) -> np.ndarray:
    files = [file for split in splits for file in sorted(directory.features("soundscapes", split).glob("*.arrow"))]
    return np.concatenate([np.array([*row]) for file in files for row in pd.read_feather(file)["codes"]])


def test_a_run_is_counted_whole_or_by_split(make: Make) -> None:
    run = make()
    for splits in (["train", "validation", "test"], ["test"]):
        found = codec_use(run.experiment, splits=[] if len(splits) == 3 else splits)
        expected = all_codes(run, splits)
        assert (found.frames, found.clips, found.splits) == (len(expected), sum(SIZES[s] for s in splits), splits)
        for book, one in enumerate(found.codebooks):
            shares = np.bincount(expected[:, book]) / len(expected)
            entropy = -sum(share * np.log2(share) for share in shares if share)
            assert one.entropy == pytest.approx(entropy)
            assert one.perplexity == pytest.approx(2**entropy)
            assert (one.used, one.dead) == (np.count_nonzero(shares), 64 - np.count_nonzero(shares))
        plain = mutual_info_score(expected[:, 0], expected[:, 1]) / np.log(2)
        assert found.codebooks[0].next_information is not None
        assert found.codebooks[0].next_information < plain
        assert found.codebooks[-1].next_information is None
    assert found.nominal_bps == pytest.approx(3 * 6 * 25)
    assert found.entropy_bps == pytest.approx(25 * sum(one.entropy for one in found.codebooks))
    assert any("fewer than the 4,096 pairs of entries" in note for note in found.notes)


def test_the_events_of_the_built_in_corpus_are_its_labels(make: Make) -> None:
    found = codec_use(make().experiment)
    assert found.labelled_clips == sum(SIZES.values())
    assert found.labels == len({event.kind for s in sample_scenes(SIZES, 0).values() for x in s for event in x.events})
    first, second = found.codebooks[:2]
    assert first.label_information is not None
    assert first.label_information_by_chance is not None
    assert second.label_information is not None
    assert second.label_information_by_chance is not None
    assert first.label_information > first.label_information_by_chance + 0.5
    assert second.label_information == pytest.approx(second.label_information_by_chance, abs=0.1)


def test_a_corpus_with_too_many_labels_or_none_goes_without(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make()
    monkeypatch.setattr(codes, "MOST_LABELS", 3)
    found = codec_use(run.experiment)
    assert (found.labels, found.labelled_clips, found.codebooks[0].label_information) == (0, 0, None)
    assert any("at most 3 are looked at" in note for note in found.notes)
    monkeypatch.setattr(type(run.experiment.corpora["soundscapes"]), "labels", lambda *_: {})
    assert not any("labels" in note for note in codec_use(run.experiment).notes)


def test_tables_csv_json_and_chart_of_two_codecs(
    make: Make, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    runs = [str(make("a").root), str(make("b", entries=128, codebooks=4, codec="another-codec").root)]
    files = ["--csv", str(tmp_path / "codes.csv"), "--plot", str(tmp_path / "codes.svg")]
    assert command("codes", *runs, *files) == 0
    shown, said = capfdbinary.readouterr()
    assert b"a: a-codec (weights aaaaaaaaaaaa), 3 codebooks of 64 entries, 0.45 kbit/s" in shown
    assert b"b: another-codec" in shown
    assert b"soundscapes (soundscapes), train, validation, test: 80 clips" in shown
    assert b"what neighbours share is estimated too high" in said
    frame = pd.read_csv(tmp_path / "codes.csv")
    assert frame["name"].tolist() == 3 * ["a"] + 4 * ["b"]
    assert frame["codebook"].tolist() == [1, 2, 3, 1, 2, 3, 4]
    assert frame["entries"].unique().tolist() == [64, 128]
    row = next(line.split() for line in shown.decode().splitlines() if line.split()[:1] == ["1"])
    assert row[1:4] == [str(frame["used"][0]), str(frame["dead"][0]), f"{frame['entropy'][0]:.2f}"]
    texts = "".join(ElementTree.parse(tmp_path / "codes.svg").getroot().itertext())
    assert "a: a-codec" in texts
    assert "b: another-codec" in texts
    assert "thin: shuffled" in texts
    assert command("codes", *runs, "--json", "--split", "test") == 0
    found = AllCodecs.model_validate(json.loads(capfdbinary.readouterr().out))
    assert [(one.name, one.splits, one.clips) for one in found.codecs] == [("a", ["test"], 16), ("b", ["test"], 16)]
    assert command("codes", *runs, "--csv", "-") == 0
    assert capfdbinary.readouterr().out == (tmp_path / "codes.csv").read_bytes()


def test_bad_input_is_named(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make()
    with pytest.raises(InputError, match="--split 'dev': soundscapes of a has train, validation, test"):
        codec_use(run.experiment, splits=["dev"])
    with pytest.raises(InputError, match="--corpus 'clotho': a has soundscapes"):
        codec_use(run.experiment, "clotho")
    shard = run.features("soundscapes", "test") / "00000.arrow"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-300])
    with pytest.raises(FeaturesError, match=r"test/00000.arrow: found a file that was cut off or damaged"):
        codec_use(run.experiment)
    other = make("b", entries=128).features("soundscapes", "test") / "00000.arrow"
    shard.write_bytes(other.read_bytes())
    with pytest.raises(FeaturesError, match=r"test/00000.arrow: codes of another codec than in .*train/00000.arrow"):
        codec_use(run.experiment)
    (run.features("soundscapes") / MARKER).unlink()
    with pytest.raises(NotReadyError, match="run `enclap prepare` on the file of a first"):
        codec_use(run.experiment)
    assert command("codes", str(tmp_path / "nowhere")) == 2
    assert "nowhere/experiment.yaml: no such file" in capsys.readouterr().err
    assert command("codes", str(run.root), "--plot", "codes.jpg") == 2
    assert "expected .png, .svg, .pdf" in capsys.readouterr().err


def test_codes_that_the_codec_does_not_have_are_named(make: Make) -> None:
    with pytest.raises(FeaturesError, match=r"train/00000.arrow: codes from 0 to \d+: expected 0 to 15"):
        codec_use(make(codebook_size=16).experiment)


def test_neither_ray_nor_torch_is_loaded(make: Make) -> None:
    code = (
        "import sys; from ray_jobs.codes import run; run(sys.argv[1:]); "
        "assert not {'torch', 'ray', 'transformers', 'matplotlib'} & set(sys.modules), sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(make().root)], check=True, cwd=ROOT, timeout=300)
