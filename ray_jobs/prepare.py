"""prepare: turn audio files into feature shards, with Ray Data.

Example: enclap prepare experiments/demo.yaml --dry-run
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data

from corpora.exclusions import Exclusions, exclude, find_evaluation_ids, read_exclusions
from corpora.noise import with_caption_noise
from corpora.overlaps import find_overlaps
from corpora.soundscapes.corpus import SoundscapesCorpus
from corpora.soundscapes.render import write_captions, write_clip
from corpora.table import QUARANTINE_COLUMNS, SHOWN, check_not_empty
from models.console import count, say
from models.files import atomic_write, write_json
from models.fingerprint import fingerprint
from ray_jobs.diagnosis.finding import Finding
from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.experiment.member_config import RetrieverMember
from ray_jobs.features.dataset import DATA, RECORD, recorded_shards
from ray_jobs.features.files import (
    EARLIER_SHARDS,
    clips_digest,
    find_shards,
    inputs_of_whole,
    read_table,
    shard_metadata,
)
from ray_jobs.features.shards import STAT_THREADS, Shard, plan_shards, write_shards
from ray_jobs.features.waveforms import write_waveforms
from ray_jobs.run import storage
from ray_jobs.run.directory import RunDirectory, is_done, mark_done
from ray_jobs.run.entry import run_command
from ray_jobs.run.session import check_room, gpu_share

Tables = dict[tuple[str, str], pd.DataFrame]  # by corpus and split


def run(experiment: Experiment, dry_run: bool = False) -> None:
    """Make the features of every split of every corpus; finished shards are kept.

    Args:
        dry_run: check everything that can be checked without decoding, print an estimate of the cost, write nothing.

    Raises:
        ConfigError: if the codec cannot be loaded, or no node has what an actor takes.
        CorpusError: if a corpus cannot be read, or a split has no usable clip.
    """
    directory = RunDirectory(experiment)
    todo = [name for name in experiment.corpora if not _is_prepared(name, experiment, directory)]
    done = len(experiment.corpora) - len(todo)
    say(f"prepare: {count(len(todo), 'corpus', 'corpora')} to prepare, {done} done already")
    _check_front_ends(experiment)
    if not todo:
        if not dry_run:
            _write_waveforms(experiment, directory)
        return
    asked = experiment.prepare
    each = {"CPU": asked.cpus, "GPU": gpu_share(asked.gpus)}
    check_room("prepare (cpus, gpus)", each, experiment.autoscaling)
    codec_rate = _codec_sample_rate(experiment)
    if dry_run:
        _dry_run(experiment, todo)
        return
    for name, corpus in experiment.corpora.items():
        if isinstance(corpus, SoundscapesCorpus) and not _is_rendered(corpus):
            _render_soundscapes(name, corpus)
    # All tables are read before any clip: a bad one is reported before any work, and exclusions need them all.
    tables, set_aside = _read_tables(experiment, list(experiment.corpora), todo)
    shards = {
        (name, split): plan_shards(table, experiment.features, directory.features(name, split))
        for (name, split), table in tables.items()
        if name in todo
    }
    everything = [shard for of_split in shards.values() for shard in of_split]
    write_shards(everything, experiment.features, codec_rate, experiment.prepare)
    for name in todo:
        own = {split: of_split for (corpus, split), of_split in shards.items() if corpus == name}
        _finish(name, set_aside[set_aside["corpus"] == name], own, directory)
    _report_overlaps(list(tables), directory)
    _write_waveforms(experiment, directory)


def check(experiment: Experiment) -> None:
    """Check that what is read is there, as `missing` has it.

    Raises:
        ConfigError: naming all that is missing.
    """
    from ray_jobs.diagnosis.needs import refuse_missing

    refuse_missing({"": missing(experiment)})


def missing(experiment: Experiment) -> list[Finding]:
    """Return what is missing here of the corpora and the codec, unless the features are there; Ray need not run."""
    from ray_jobs.diagnosis.needs import missing_for_features

    directory = RunDirectory(experiment)
    done = all(is_done(directory.features(name), directory.features_inputs()) for name in experiment.corpora)
    return [] if done else missing_for_features(experiment)


def _check_front_ends(experiment: Experiment) -> None:
    """Load the feature extractors of audio encoders of transformers: one that does not fit is reported here.

    Raises:
        ConfigError: naming the member.
    """
    for name, member in experiment.members.items():
        if isinstance(member, RetrieverMember) and member.audio_encoder.transformer:
            from models.encoders.audio_windows import AudioWindows

            try:
                AudioWindows.of(member.audio_encoder)
            except ValueError as error:
                raise ConfigError(f"members.{name}: {error}") from error


def _write_waveforms(experiment: Experiment, directory: RunDirectory) -> None:
    """Make what is missing of the waveforms that members read."""
    folders = [
        directory.features(name, split) for name, corpus in experiment.corpora.items() for split in corpus.splits
    ]
    write_waveforms({folder: find_shards(folder) for folder in folders}, experiment)


def _dry_run(experiment: Experiment, todo: list[str]) -> None:
    from ray_jobs.features.dry_run import show_estimate

    there = []
    for name, corpus in experiment.corpora.items():
        if isinstance(corpus, SoundscapesCorpus) and not _is_rendered(corpus):
            say(f"prepare: {name}: {sum(corpus.splits.values())} clips would be rendered into {corpus.root} first")
        else:
            there.append(name)
    if there:
        tables, set_aside = _read_tables(experiment, there, todo)
        tables = {key: table for key, table in tables.items() if key[0] in todo}
        for key, rows in set_aside[set_aside["corpus"].isin(todo)].groupby(["corpus", "split"]):
            for reason in rows["reason"].head(SHOWN):
                say(f"{'/'.join(map(str, key))}: set aside: {reason}", style="yellow")
            if len(rows) > SHOWN:
                say(f"{'/'.join(map(str, key))}: and {len(rows) - SHOWN} more", style="yellow")
        if tables:
            show_estimate(tables, set_aside, experiment.features, experiment.prepare)


def _read_tables(experiment: Experiment, corpora: list[str], todo: list[str]) -> tuple[Tables, pd.DataFrame]:
    """Return every split's usable clips, and those set aside (corpus, split and the quarantine's columns).

    Raises:
        CorpusError: a corpus cannot be read, or one of those to do has a split without a usable clip.
    """
    tables: Tables = {}
    rejected: list[pd.DataFrame] = []
    for name in corpora:
        corpus = experiment.corpora[name]
        for split in corpus.splits:
            table = corpus.read(split)
            tables[name, split] = table.clips
            rejected.append(table.quarantine.assign(corpus=name, split=split))
    for (name, of), excluded in _exclude(experiment, tables).items():
        rejected.append(excluded.assign(corpus=name, split=of))
    set_aside = pd.concat(rejected, ignore_index=True)
    check_not_empty({key: len(clips) for key, clips in tables.items() if key[0] in todo}, set_aside)
    for name in corpora:
        if noise := experiment.corpora[name].caption_noise:
            tables[name, "train"] = with_caption_noise(tables[name, "train"], noise)
            say(f"prepare: {name}: {noise:.0%} of the training clips have the captions of others (caption_noise)")
    return tables, set_aside


def _exclude(experiment: Experiment, tables: Tables) -> Tables:
    """Remove from the training splits, in place, the clips of the exclusions, and return these."""
    lists = experiment.exclusion_lists()
    found = [find_evaluation_ids(tables)] if experiment.exclusions.evaluation_clips else []
    exclusions = Exclusions.union([*found, *(read_exclusions(file) for file in lists)])
    for warning in experiment.missing_exclusions():
        say(f"prepare: {warning}", style="yellow")
    if lists:
        say(f"prepare: exclusion lists: {', '.join(map(str, lists))}")
    taken: Tables = {}
    for key in [key for key in tables if key[1] == "train"]:
        before = len(tables[key])
        allowed = exclude(tables[key], exclusions)
        tables[key], taken[key] = allowed.clips, allowed.quarantine
        if len(exclusions.freesound) or len(exclusions.youtube):
            say(f"prepare: {key[0]}: {len(taken[key])} of {before} training clips excluded")
    return taken


def _codec_sample_rate(experiment: Experiment) -> int:
    """Return the codec's sample rate in Hz; a codec that cannot be loaded is reported here, before any work."""
    from models.codec.base import load_codec
    from models.codec.weights import CodecError

    try:
        return load_codec(experiment.features.codec, experiment.features.codebooks).sample_rate
    except CodecError as error:
        raise ConfigError(f"features.codec: {error}") from error


def _is_prepared(name: str, experiment: Experiment, directory: RunDirectory) -> bool:
    """Return whether a corpus's features are there: those that were made, whole, and in today's form."""
    if not is_done(directory.features(name), directory.features_inputs()):
        return False
    for split in experiment.corpora[name].splits:
        folder = directory.features(name, split)
        if storage.listing(folder, EARLIER_SHARDS):
            return False
        shards = find_shards(folder)
        with ThreadPoolExecutor(STAT_THREADS) as threads:
            found = dict(zip([shard.name for shard in shards], threads.map(inputs_of_whole, shards), strict=True))
        if None in found.values() or recorded_shards(folder) not in (None, found):
            return False
    return True


def _finish(name: str, set_aside: pd.DataFrame, shards: dict[str, list[Shard]], directory: RunDirectory) -> None:
    """Write the corpus's quarantine and, if every split has clips, mark it done."""
    target, quarantine = directory.features(name), directory.features(name) / "quarantine.parquet"
    parts = [set_aside]
    for split, of in shards.items():
        rows = [row for shard in of for row in shard_metadata(Path(shard.path))["quarantine"]]
        parts.append(pd.DataFrame(rows, columns=list(QUARANTINE_COLUMNS)).assign(corpus=name, split=split))
    rejected = pd.concat(parts, ignore_index=True)
    _write_strings(rejected[list(QUARANTINE_COLUMNS)], quarantine)
    if len(rejected):
        first = rejected.iloc[0]
        say(f"prepare: {name}: {count(len(rejected), 'clip')} quarantined, the first: {first.reason}", style="yellow")
    data = {split: clips_digest([Path(shard.path) for shard in of]) for split, of in shards.items()}
    check_not_empty({(name, split): int(digest is not None) for split, digest in data.items()}, rejected, quarantine)
    record = {split: {Path(shard.path).name: shard.inputs for shard in of} for split, of in shards.items()}
    mark_done(target, directory.features_inputs(), **{RECORD: record, DATA: data})


def _report_overlaps(splits: list[tuple[str, str]], directory: RunDirectory) -> None:
    """Write features/overlaps.parquet: the clips that two splits or corpora share, by id or by equal samples."""
    identities = []
    for corpus, split in splits:
        for shard in find_shards(directory.features(corpus, split)):
            table = read_table(shard, ["clip_id", "freesound_id", "youtube_id", "audio_sha256"])
            identities.append(pd.DataFrame(table.columns).assign(corpus=corpus, split=split))
    overlaps = find_overlaps(pd.concat(identities, ignore_index=True))
    _write_strings(overlaps, directory.root / "features" / "overlaps.parquet")
    if len(overlaps):
        say(f"prepare: {len(overlaps)} clips are shared between splits or corpora: features/overlaps.parquet", "yellow")


def _write_strings(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame of strings, with the same schema if it is empty."""
    schema = pa.schema({column: pa.string() for column in frame.columns})
    with atomic_write(path) as partial:
        pq.write_table(pa.Table.from_pandas(frame.astype(str), schema=schema, preserve_index=False), partial)
    storage.push(path)


# --- the built-in corpus -------------------------------------------------------------------------------------------


def _render_soundscapes(name: str, corpus: SoundscapesCorpus) -> None:
    """Render the corpus into its root."""
    root = Path(corpus.root)
    scenes = corpus.scenes()
    everything = [scene for split in scenes.values() for scene in split]
    say(f"prepare: rendering {len(everything)} clips of {name} into {root}")

    def render(row: dict[str, Any]) -> dict[str, Any]:
        for scene in row["scenes"]:
            write_clip(scene, root, corpus.sample_rate)
        return {"clips": len(row["scenes"])}

    batches = [{"scenes": everything[at : at + 32]} for at in range(0, len(everything), 32)]
    rendered = ray.data.from_items(batches, override_num_blocks=len(batches)).map(render)
    # iterated, for an aggregation of Ray Data's would take a CPU for itself
    say(f"prepare: rendered {sum(row['clips'] for row in rendered.iter_rows())} clips")
    for split, of_split in scenes.items():
        write_captions(root, split, of_split)
    write_json(root / "corpus.json", {"corpus": "soundscapes (synthetic)", **corpus.model_dump(mode="json")})
    mark_done(root, _rendering_inputs(corpus))


def _is_rendered(corpus: SoundscapesCorpus) -> bool:
    return is_done(Path(corpus.root), _rendering_inputs(corpus))


def _rendering_inputs(corpus: SoundscapesCorpus) -> str:
    return fingerprint(corpus.model_dump(mode="json", exclude={"root"}))


if __name__ == "__main__":
    run_command("prepare")
