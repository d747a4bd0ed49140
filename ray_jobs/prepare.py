"""prepare: from audio files to feature shards, on Ray Data.

Example: enclap prepare experiments/demo.yaml
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data

from corpora import folder, soundscapes
from corpora.audio import AudioError, load_audio
from corpora.table import CorpusError
from models.checkpoint import write_json
from ray_jobs.config import Corpus, Experiment, FeaturesConfig, SoundscapesCorpus, fingerprint
from ray_jobs.console import say
from ray_jobs.features import shard_metadata, write_shard
from ray_jobs.run_directory import RunDirectory, is_done, mark_done

QUARANTINE = ["clip_id", "path", "reason"]


def run(experiment: Experiment) -> None:
    """Make the features of every split of every corpus; finished shards are kept."""
    directory = RunDirectory(experiment)
    directory.write_experiment()
    for name, corpus in experiment.corpora.items():
        target, inputs = directory.features(name), directory.features_inputs()
        if is_done(target, inputs):
            say(f"prepare: {name} is done already")
            continue
        _prepare_corpus(name, corpus, experiment.features, target)
        mark_done(target, inputs)


def _prepare_corpus(name: str, corpus: Corpus, features: FeaturesConfig, target: Path) -> None:
    if isinstance(corpus, SoundscapesCorpus):
        _render_soundscapes(name, corpus)
    quarantine = []
    # All splits are read before any is worked on, so that a bad table is said at once.
    tables = {split: folder.read_folder(Path(corpus.root).resolve(), split) for split in corpus.splits}
    for split, (table, unusable) in tables.items():
        quarantine.append(unusable)
        quarantine.append(_extract(f"{name}/{split}", table, features, target / split))
    rejected = pd.concat(quarantine, ignore_index=True)
    target.mkdir(parents=True, exist_ok=True)
    schema = pa.schema({column: pa.string() for column in QUARANTINE})
    pq.write_table(pa.Table.from_pandas(rejected[QUARANTINE], schema=schema), target / "quarantine.parquet")
    if len(rejected):
        first = rejected.iloc[0]
        say(f"prepare: {len(rejected)} clips of {name} quarantined, the first {first.clip_id}: {first.reason}")
    for split in corpus.splits:
        if not any(pq.read_metadata(shard).num_rows for shard in (target / split).glob("*.parquet")):
            raise CorpusError(f"{name}/{split}: no usable clip; {target / 'quarantine.parquet'} says why for each")


# --- the built-in corpus -------------------------------------------------------------------------------------------


def _render_soundscapes(name: str, corpus: SoundscapesCorpus) -> None:
    """Render the corpus into its root, unless it is there."""
    root = Path(corpus.root).resolve()
    inputs = fingerprint(corpus.model_dump(mode="json", exclude={"root"}))
    if is_done(root, inputs):
        return
    scenes = soundscapes.sample_scenes(dict(corpus.splits), corpus.seed)
    everything = [scene for split in scenes.values() for scene in split]
    say(f"prepare: rendering {len(everything)} clips of {name} into {root}")

    def render(row: dict[str, Any]) -> dict[str, Any]:
        for scene in row["scenes"]:
            soundscapes.write_clip(scene, root, corpus.sample_rate)
        return {"clips": len(row["scenes"])}

    batches = [{"scenes": everything[at : at + 32]} for at in range(0, len(everything), 32)]
    rendered = ray.data.from_items(batches, override_num_blocks=len(batches)).map(render)
    say(f"prepare: rendered {rendered.sum('clips')} clips")
    for split, of_split in scenes.items():
        soundscapes.write_captions(root, split, of_split)
    write_json(root / "corpus.json", {"corpus": "soundscapes (synthetic)", **corpus.model_dump(mode="json")})
    mark_done(root, inputs)


# --- features ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shard:
    """A fixed share of a split: which clips go into which file."""

    path: str
    clips: list[tuple[str, str, list[str]]]  # clip_id, path, captions
    inputs: str


class ShardWriter:
    """A Ray Data actor that turns audio files into one feature shard after the other."""

    def __init__(self, features: FeaturesConfig) -> None:
        from models.codec import Codec
        from models.log_mel import LogMel

        self.features = features
        self.codec = Codec.load(features.codec, features.codebooks)
        self.log_mel = LogMel(features.log_mel)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        shard: Shard = row["shard"]
        quarantine: list[tuple[str, str, str]] = []
        clips, waveforms, longest = [], [], self.features.max_duration_s
        for clip_id, path, captions in shard.clips:
            try:
                waveform = load_audio(Path(path), self.codec.sample_rate, longest)
                log_mel = self.log_mel(load_audio(Path(path), self.features.log_mel.sample_rate, longest))
            except AudioError as error:
                quarantine.append((clip_id, path, str(error)))
                continue
            waveforms.append(waveform)
            duration = len(waveform) / self.codec.sample_rate
            clips.append(
                {"clip_id": clip_id, "path": path, "captions": captions, "duration_s": duration, "log_mel": log_mel}
            )
        for clip, codes in zip(clips, self.codec.encode(waveforms) if clips else [], strict=True):
            clip["codes"] = codes
        metadata = {"inputs": shard.inputs, "codec": self.codec.provenance(), "quarantine": quarantine}
        write_shard(Path(shard.path), clips, metadata, self.codec.n_codebooks, self.features.log_mel.n_mels)
        return {"clips": len(clips), "seconds": sum(clip["duration_s"] for clip in clips)}


def _extract(what: str, table: pd.DataFrame, features: FeaturesConfig, target: Path) -> pd.DataFrame:
    """Write the shards of a split; returns the clips that could not be used."""
    rows = list(table[["clip_id", "path", "captions"]].itertuples(index=False, name=None))
    size = features.clips_per_shard
    shards = []
    for number, at in enumerate(range(0, len(rows), size)):
        clips = rows[at : at + size]
        inputs = fingerprint(features, clips, [_stamp(path) for _, path, _ in clips])
        shards.append(Shard(str(target / f"{number:05d}.parquet"), clips, inputs))
    _remove_others(target, {shard.path for shard in shards})
    todo = [shard for shard in shards if not _is_written(shard)]
    say(f"prepare: {what}: {len(rows)} clips in {len(shards)} shards, {len(shards) - len(todo)} of them done already")
    if todo:
        workers = max(1, min(len(todo), int(ray.cluster_resources().get("CPU", 1))))
        written = ray.data.from_items([{"shard": shard} for shard in todo], override_num_blocks=len(todo)).map(
            ShardWriter,
            fn_constructor_args=(features,),
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=1,
        )
        totals = written.sum(["clips", "seconds"])
        say(f"prepare: {what}: {totals['sum(clips)']} clips, {totals['sum(seconds)'] / 60:.1f} minutes of audio")
    rejected = [row for shard in shards for row in shard_metadata(Path(shard.path))["quarantine"]]
    return pd.DataFrame(rejected, columns=QUARANTINE)


def _stamp(path: str) -> list[int]:
    """Size and time of change: a shard is made anew when one of its files is another."""
    try:
        status = Path(path).stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def _is_written(shard: Shard) -> bool:
    path = Path(shard.path)
    return path.is_file() and shard_metadata(path)["inputs"] == shard.inputs


def _remove_others(target: Path, wanted: set[str]) -> None:
    """Remove shards of an earlier, larger version of the split, and what a crash left half-written."""
    for path in [*target.glob("*.parquet"), *target.glob(".*.partial")]:
        if str(path) not in wanted:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


if __name__ == "__main__":
    import sys

    from ray_jobs.cli import main

    main(["prepare", *sys.argv[1:]])
