"""The doors through which people's files come in, each with good files to mutate and what opens them, and all doors."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import soundfile

from corpora.folder import read_folder
from corpora.parquet import ParquetCorpus
from models.audio import load_audio, read_duration
from models.csv_files import read_captions, read_queries
from models.ensemble.bundle import Ensemble
from models.ensemble.checksums import write_sums
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.features.dataset import read_features
from ray_jobs.features.files import write_shard
from tests.fuzz.command_lines import CommandLines
from tests.fuzz.door import Door
from tests.fuzz.requests import Requests
from tests.small_bundle import write_bundle, write_sounds

ROOT = Path(__file__).parents[2]
SUMS_FILE = "MANIFEST.json"
RATE = 16_000


class Config(Door):
    """Experiment files."""

    name = "config"
    FILES = ("demo.yaml", "smoke.yaml", "dcase2024.yaml", "distil.yaml")

    def write(self) -> list[Path]:
        return [Path(shutil.copy(ROOT / "experiments" / name, self.folder)) for name in self.FILES]

    def open(self, path: Path) -> None:
        loaded = load_experiment(path)
        assert isinstance(loaded, Experiment)


class Captions(Door):
    """CSV files of captions and queries."""

    name = "captions"

    def write(self) -> list[Path]:
        (self.folder / "test").mkdir()
        rows = [(f"{clip}.wav", f'a dog, "barking" {clip}', "it rains", "x1") for clip in range(6)]
        for name, _, _, _ in rows:
            (self.folder / "test" / name).touch()
        frame = pd.DataFrame(rows, columns=["file_name", "caption_1", "caption_2", "freesound_id"])
        frame.to_csv(self.folder / "test.csv", index=False)
        frame.rename(columns={"caption_1": "caption"}).to_csv(self.folder / "queries.csv", index=False, sep=";")
        return [self.folder / "test.csv", self.folder / "queries.csv"]

    def open(self, path: Path) -> None:
        if path.name == "test.csv":
            read_folder(self.folder, "test")
            read_captions(path)
        else:
            read_queries(path)


class Audio(Door):
    """Audio files of the formats that libsndfile writes."""

    name = "audio"
    FORMATS: ClassVar = {
        "pcm16.wav": ("WAV", "PCM_16"), "float.wav": ("WAV", "FLOAT"), "adpcm.wav": ("WAV", "MS_ADPCM"),
        "x.flac": ("FLAC", "PCM_16"), "x.ogg": ("OGG", "VORBIS"), "x.opus": ("OGG", "OPUS"),
        "x.mp3": ("MP3", "MPEG_LAYER_III"), "x.aiff": ("AIFF", "PCM_24"), "x.au": ("AU", "ULAW"),
        "x.caf": ("CAF", "PCM_16"), "x.w64": ("W64", "PCM_16"), "rf64.wav": ("RF64", "PCM_16"),
    }  # fmt: skip

    def write(self) -> list[Path]:
        time_s = np.arange(RATE) / RATE
        sound = 0.3 * np.sin(2 * np.pi * 440 * time_s) + 0.02 * np.random.default_rng(0).normal(size=RATE)
        for name, (kind, subtype) in self.FORMATS.items():
            soundfile.write(self.folder / name, sound, RATE, format=kind, subtype=subtype)
        return [self.folder / name for name in self.FORMATS]

    def open(self, path: Path) -> None:
        read_duration(path)
        heard = load_audio(path, RATE, max_duration_s=30)
        assert np.isfinite(heard).all()


class Shards(Door):
    """Feature shards, as a run has them."""

    name = "shards"

    def write(self) -> list[Path]:
        rng = np.random.default_rng(0)
        rows = [
            {
                **dict.fromkeys(("freesound_id", "youtube_id", "audio_sha256"), ""),
                "clip_id": str(clip),
                "path": f"/audio/{clip}.wav",
                "duration_s": 1.0,
                "captions": ["a dog barks"],
                "codes": rng.integers(0, 16, (20, 2)).astype(np.int16),
                "log_mel": rng.normal(size=(40, 8)).astype(np.float16),
            }
            for clip in range(4)
        ]
        path = self.folder / "00000.arrow"
        write_shard(path, rows, {"codec": {"codebook_size": 16}, "inputs": "x"}, codebooks=2, mels=8)
        return [path]

    def open(self, path: Path) -> None:
        features = read_features([path.parent])
        for clip in range(len(features)):
            assert features.codes[clip].ndim == features.log_mels[clip].ndim == 2


class ParquetFiles(Door):
    """Corpora in Parquet, as the hub has them."""

    name = "parquet"

    def write(self) -> list[Path]:
        (sound,) = write_sounds(self.folder / "sounds", 1)
        audio = {"bytes": sound.read_bytes(), "path": "a.wav"}
        rows = [{"audio": audio, "caption_1": "a dog barks", "caption_2": "it barks"} for _ in range(3)]
        path = self.folder / "test-00000-of-00001.parquet"
        pd.DataFrame(rows).to_parquet(path)
        return [path]

    def open(self, path: Path) -> None:
        ParquetCorpus.model_validate({"kind": "parquet", "root": str(path.parent), "splits": ["test"]}).read("test")


class Bundles(Door):
    """Exported ensembles: manifest, settings, tokenizers and weights. Nothing in them is unpickled."""

    name = "bundle"
    together = True

    def write(self) -> list[Path]:
        self.bundle = write_bundle(self.folder / "bundle")
        self.sound = write_sounds(self.folder / "sounds", 1)[0]
        self.files = [path for path in self.bundle.rglob("*") if path.is_file()]
        self.summed = [str(path.relative_to(self.bundle)) for path in self.files if path.name != SUMS_FILE]
        return self.files

    def open(self, path: Path) -> None:
        if path.name != SUMS_FILE:  # as if whoever made the bundle had damaged it: sums alone would find everything
            write_sums(self.bundle, self.summed)
        Ensemble.load(self.bundle, "cpu").caption([self.sound])


DOORS: tuple[type[Door], ...] = (Config, Captions, Audio, Shards, ParquetFiles, Bundles, Requests, CommandLines)
