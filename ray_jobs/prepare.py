"""prepare: from audio files to feature shards, on Ray Data.

Example: enclap prepare experiments/demo.yaml
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data

from corpora import folder, soundscapes
from corpora.audio import AudioError, load_audio
from corpora.table import CorpusError
from models.files import write_json
from ray_jobs.config import ConfigError, Experiment, FeaturesConfig, SoundscapesCorpus, fingerprint
from ray_jobs.console import say
from ray_jobs.features import shard_metadata, write_shard
from ray_jobs.run_directory import RunDirectory, is_done, mark_done

QUARANTINE = ["clip_id", "path", "reason"]


def run(experiment: Experiment) -> None:
    """Make the features of every split of every corpus; finished shards are kept."""
    directory = RunDirectory(experiment)
    inputs = directory.features_inputs()
    todo = {n: c for n, c in experiment.corpora.items() if not is_done(directory.features(n), inputs)}
    say(f"prepare: {len(todo)} corpora to prepare, {len(experiment.corpora) - len(todo)} done already")
    if not todo:
        return
    for name, corpus in todo.items():
        if isinstance(corpus, SoundscapesCorpus):
            _render_soundscapes(name, corpus)
    # All tables are read before any clip is worked on, so that a bad one is said at once.
    tables = {
        (name, split): folder.read_folder(Path(corpus.root), split)
        for name, corpus in todo.items()
        for split in corpus.splits
    }
    _require_codec(experiment.features.codec)
    directory.write_experiment()
    shards = {
        (name, split): _shards(table, experiment.features, directory.features(name, split))
        for (name, split), (table, _) in tables.items()
    }
    _write_shards([shard for of_split in shards.values() for shard in of_split], experiment.features)
    for name in todo:
        unusable = [tables[key][1] for key in tables if key[0] == name]
        own = {str(split): of_split for (corpus, split), of_split in shards.items() if corpus == name}
        _finish(name, unusable, own, directory, inputs)


def _require_codec(source: str) -> None:
    """Say at once that the codec's weights are missing, not when the first actor has started."""
    from models.codec import CodecError, find_weights

    try:
        find_weights(source)
    except CodecError as error:
        raise ConfigError(f"features.codec: {error}") from error


def _finish(
    name: str, unusable: list[pd.DataFrame], shards: dict[str, list[Shard]], directory: RunDirectory, inputs: str
) -> None:
    """Write the corpus's quarantine and, if every split has clips, mark it done."""
    target = directory.features(name)
    rows = [row for of in shards.values() for shard in of for row in shard_metadata(Path(shard.path))["quarantine"]]
    rejected = pd.concat([*unusable, pd.DataFrame(rows, columns=QUARANTINE)], ignore_index=True)
    target.mkdir(parents=True, exist_ok=True)
    schema = pa.schema({column: pa.string() for column in QUARANTINE})
    table = pa.Table.from_pandas(rejected[QUARANTINE].astype(str), schema=schema, preserve_index=False)
    pq.write_table(table, target / "quarantine.parquet")
    if len(rejected):
        first = rejected.iloc[0]
        say(f"prepare: {name}: {len(rejected)} clips quarantined, the first: {first.reason}", style="yellow")
    for split, of in shards.items():
        if not any(pq.read_metadata(shard.path).num_rows for shard in of):
            raise CorpusError(f"{name}/{split}: no usable clip; {target / 'quarantine.parquet'} says why for each")
    mark_done(target, inputs)


# --- the built-in corpus -------------------------------------------------------------------------------------------


def _render_soundscapes(name: str, corpus: SoundscapesCorpus) -> None:
    """Render the corpus into its root, unless it is there."""
    root = Path(corpus.root)
    inputs = fingerprint(corpus.model_dump(mode="json", exclude={"root"}))
    if is_done(root, inputs):
        return
    scenes = soundscapes.sample_scenes({str(split): n for split, n in corpus.splits.items()}, corpus.seed)
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
    inputs: str
    clips: list[tuple[str, str, list[str]]]  # clip_id, path, captions


class ShardWriter:
    """A Ray Data actor that turns audio files into one feature shard after the other."""

    def __init__(self, features: FeaturesConfig) -> None:
        from models.codec import Codec
        from models.log_mel import LogMel

        self.features = features
        self.codec = Codec.load(features.codec, features.codebooks)
        self.log_mel = LogMel(features.log_mel)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Write the shard that `row["shard"]` describes as JSON; returns how much it holds."""
        shard = Shard(**json.loads(row["shard"]))
        quarantine: list[tuple[str, str, str]] = []
        clips: list[dict[str, Any]] = []
        waveforms: list[np.ndarray] = []
        for clip_id, path, captions in shard.clips:
            try:
                waveform, log_mel = self._read(Path(path))
            except AudioError as error:
                quarantine.append((clip_id, path, str(error)))
                continue
            duration = len(waveform) / self.codec.sample_rate
            clips.append(
                {"clip_id": clip_id, "path": path, "captions": captions, "duration_s": duration, "log_mel": log_mel}
            )
            waveforms.append(waveform)
        for clip, codes in zip(clips, self.codec.encode(waveforms) if clips else [], strict=True):
            clip["codes"] = codes
        metadata = {"inputs": shard.inputs, "codec": self.codec.provenance(), "quarantine": quarantine}
        write_shard(Path(shard.path), clips, metadata, self.codec.n_codebooks, self.features.log_mel.n_mels)
        return {"clips": len(clips), "seconds": sum(clip["duration_s"] for clip in clips)}

    def _read(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """The waveform for the codec, and the log_mel; each from the rate that it wants."""
        longest, rate = self.features.max_duration_s, self.features.log_mel.sample_rate
        waveform = load_audio(path, self.codec.sample_rate, longest)
        same = rate == self.codec.sample_rate
        return waveform, self.log_mel(waveform if same else load_audio(path, rate, longest))


def _shards(table: pd.DataFrame, features: FeaturesConfig, target: Path) -> list[Shard]:
    """Share a split out, and remove shards of an earlier, larger version of it."""
    rows = list(table[["clip_id", "path", "captions"]].itertuples(index=False, name=None))
    size = features.clips_per_shard
    shards = []
    for number, at in enumerate(range(0, len(rows), size)):
        clips = rows[at : at + size]
        inputs = fingerprint(features, clips, [_stamp(path) for _, path, _ in clips])
        shards.append(Shard(str(target / f"{number:05d}.parquet"), inputs, clips))
    wanted = {shard.path for shard in shards}
    for path in [*target.glob("*.parquet"), *target.glob(".*.partial")]:
        if str(path) not in wanted:
            path.unlink()
    return shards


def _write_shards(shards: list[Shard], features: FeaturesConfig) -> None:
    """Make the shards that are not there yet, of all corpora and splits, on one pool of actors."""
    todo = [shard for shard in shards if not _is_written(shard)]
    clips = sum(len(shard.clips) for shard in todo)
    say(f"prepare: {len(todo)} shards of {clips} clips to make, {len(shards) - len(todo)} done already")
    if not todo:
        return
    rows = [{"shard": json.dumps(asdict(shard))} for shard in todo]
    workers = max(1, min(len(todo), int(ray.cluster_resources().get("CPU", 1))))
    written = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        ShardWriter,
        fn_constructor_args=(features,),
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=1,
    )
    done, seconds = 0, 0.0
    for row in written.iter_rows():
        done, seconds = done + row["clips"], seconds + row["seconds"]
        say(f"prepare: {done}/{clips} clips, {seconds / 60:.1f} minutes of audio")


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


if __name__ == "__main__":
    import sys

    from ray_jobs.cli import main

    main(["prepare", *sys.argv[1:]])
