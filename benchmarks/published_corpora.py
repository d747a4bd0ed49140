"""Write a few rendered clips in the layouts of Clotho v2.1, AudioCaps and WavCaps, as these are published."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import soundfile

from corpora.soundscapes.grammar import describe
from corpora.soundscapes.render import render
from corpora.soundscapes.sampling import sample_scenes
from corpora.soundscapes.scene import Scene

CLOTHO = {"development": 8, "validation": 8, "evaluation": 8}  # clips
WAVCAPS = {"AudioSet_SL": "as_final.json", "BBC_Sound_Effects": "bbc_final.json", "FreeSound": "fsd_final.json",
           "SoundBible": "sb_final.json"}  # fmt: skip
AUDIOCAPS_CLIPS, WAVCAPS_CLIPS = 8, 2  # the second of each source
RATES = {"clotho": 44_100, "audiocaps": 44_100, "wavcaps": 32_000}


def write_corpora(root: Path, duration_s: float, seed: int = 0) -> list[str]:
    """Write `root/clotho`, `root/audiocaps` and `root/wavcaps`, and return all captions.

    Args:
        duration_s: of each clip; the published ones have 10 to 30 s.
    """
    sizes = {**CLOTHO, "audiocaps": AUDIOCAPS_CLIPS, **dict.fromkeys(WAVCAPS, WAVCAPS_CLIPS)}
    scenes = {
        split: [replace(scene, duration_s=duration_s) for scene in of_split]
        for split, of_split in sample_scenes(sizes, seed).items()
    }
    for split in CLOTHO:
        _write_clotho(root / "clotho", split, scenes[split])
    _write_audiocaps(root / "audiocaps", scenes["audiocaps"])
    for source in WAVCAPS:
        _write_wavcaps(root / "wavcaps", source, scenes[source])
    return [caption for of_split in scenes.values() for scene in of_split for caption in describe(scene)]


def _write_clotho(root: Path, split: str, scenes: list[Scene]) -> None:
    names = [f"{scene.clip_id} of {scene.relation}.wav" for scene in scenes]
    _write_audio([root / split / name for name in names], scenes, RATES["clotho"])
    header = ["file_name", *(f"caption_{number}" for number in range(1, 6))]
    rows = [[name, *describe(scene)] for name, scene in zip(names, scenes, strict=True)]
    _write_csv(root / f"clotho_captions_{split}.csv", header, rows)
    columns = ["file_name", "keywords", "sound_id", "sound_link", "start_end_samples", "manufacturer", "license"]
    ids = [str(scene.seed) for scene in scenes]
    metadata = [[name, "rain;wind", at, f"https://freesound.org/s/{at}", "[0, 9]", "x", "CC0"]
                for name, at in zip(names, ids, strict=True)]  # fmt: skip
    _write_csv(root / f"clotho_metadata_{split}.csv", columns, metadata)


def _write_audiocaps(root: Path, scenes: list[Scene]) -> None:
    videos = [f"video{number:06d}" for number in range(len(scenes))]
    _write_audio([root / "train" / f"{video}_30.wav" for video in videos], scenes, RATES["audiocaps"])
    rows = [[str(number), video, "30", describe(scene)[0]] for number, (video, scene) in enumerate(zip(videos, scenes))]
    _write_csv(root / "train.csv", ["audiocap_id", "youtube_id", "start_time", "caption"], rows)


def _write_wavcaps(root: Path, source: str, scenes: list[Scene]) -> None:
    names = [str(scene.seed) for scene in scenes]
    listed = names
    if source == "AudioSet_SL":
        names = [f"Yother{number:06d}" for number in range(len(scenes))]
        listed = [f"{name}.wav" for name in names]
    _write_audio([root / "Audio" / source / f"{name}.flac" for name in names], scenes, RATES["wavcaps"])
    items = [
        {"id": name, "caption": describe(scene)[0], "duration": scene.duration_s, "audio": "wav_path"}
        for name, scene in zip(listed, scenes, strict=True)
    ]
    path = root / "json_files" / source / WAVCAPS[source]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"num_captions_per_audio": 1, "data": items}), encoding="utf-8")


def _write_audio(paths: list[Path], scenes: list[Scene], sample_rate: int) -> None:
    for path, scene in zip(paths, scenes, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, render(scene, sample_rate), sample_rate)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
