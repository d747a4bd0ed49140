"""The bundle of a run is replaced whole: an export that fails or is killed leaves the one before."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from models.ensemble.bundle import REFERENCES, read_references
from models.ensemble.checksums import FILES, SUMS, read_sums
from models.ensemble.manifest import MANIFEST
from models.files import sha256_of
from ray_jobs import export
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.reporting.notice import described_corpora
from ray_jobs.results.member import MemberMetrics
from ray_jobs.results.metrics import EnsembleMetrics
from ray_jobs.run.directory import MARKER, RunDirectory, mark_done

from .conftest import ROOT
from .example_results import ensemble_metrics


class Manifest:
    """Stands for the manifest, which needs trained members."""

    def __init__(self, *columns: str) -> None:
        self.columns = list(columns)

    def model_dump_json(self, indent: int) -> str:
        return "{}"

    def needed_columns(self) -> list[str]:
        return self.columns


class Codec:
    """Stands for the codec, and fails to be written where it is told to."""

    fails = False

    def save(self, path: Path) -> None:
        path.parent.mkdir()
        path.write_text("codec")
        if self.fails:
            raise OSError("no space left on device")


def stand_in(monkeypatch: pytest.MonkeyPatch, codec: Codec, manifest: Manifest) -> None:
    """Export these, of members that are not there, and so without a self-test."""
    monkeypatch.setattr(export, "load_codec", lambda *_: codec)
    monkeypatch.setattr(export, "_manifest", lambda *_: manifest)
    monkeypatch.setattr(export, "write_self_test", lambda *_: None)
    monkeypatch.setattr(export.Choices, "searched", lambda _: None)


def test_a_bundle_stays_until_the_next_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = load_experiment(ROOT / "experiments" / "smoke.yaml", [f"storage_path={tmp_path}"])
    run, codec = RunDirectory(experiment), Codec()
    for name in experiment.members:
        run.member(name).mkdir(parents=True)
    ensemble_metrics(experiment).write(run.ensemble)
    mark_done(run.ensemble, run.search_inputs())
    stand_in(monkeypatch, codec, Manifest())
    export.run(experiment)
    made = {"members", "codec", "bundle.json", "NOTICE", "README.md", FILES, EnsembleMetrics.FILE, MARKER}
    assert {path.name for path in run.bundle.iterdir()} == made
    notice = (run.bundle / "NOTICE").read_text()
    assert "- soundscapes (soundscapes): synthetic" in notice
    assert f"of it: {', '.join(experiment.members)}" in notice
    assert "Clotho" not in notice, "the run did not see it"
    # a bundle of other settings, and what two killed exports left
    mark_done(run.bundle, "others")
    (run.bundle / "of the old one").touch()
    (run.root / ".bundle.partial").mkdir()
    (run.root / ".bundle.1.partial" / "members").mkdir(parents=True)
    codec.fails = True
    with pytest.raises(OSError, match="no space"):
        export.run(experiment)
    assert {path.name for path in run.bundle.iterdir()} == made | {"of the old one"}
    assert not list(run.root.glob(".bundle*"))
    codec.fails = False
    export.run(experiment)
    assert {path.name for path in run.bundle.iterdir()} == made


def test_a_licence_that_is_stated_later_renews_the_notes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = {"kind": "folder", "root": str(tmp_path), "splits": ["train", "validation", "test"]}
    overrides = [f"storage_path={tmp_path}", f"corpora.soundscapes={json.dumps(shared)}"]
    experiment = load_experiment(ROOT / "experiments" / "smoke.yaml", overrides)
    run, written = RunDirectory(experiment), Manifest()
    for name in experiment.members:
        run.member(name).mkdir(parents=True)
    ensemble_metrics(experiment).write(run.ensemble)
    mark_done(run.ensemble, run.search_inputs())
    provenance = {"commit": "of the first export", "corpora": described_corpora(experiment)}
    monkeypatch.setattr(written, "model_dump_json", lambda indent: json.dumps({"provenance": provenance}))
    stand_in(monkeypatch, Codec(), written)
    export.run(experiment)
    (run.bundle / "index").mkdir()
    (run.bundle / "index" / "of the user").touch()
    sums = "".join(f"{found}  {name}\n" for name, found in read_sums(run.bundle).items())
    (run.bundle / FILES).unlink()
    (run.bundle / SUMS).write_text(sums)  # as an earlier version left it
    codec = (run.bundle / "codec" / "codec.safetensors").stat().st_mtime_ns
    for stated, noted in (
        ({"licence": "CC BY-NC 4.0"}, "CC BY-NC 4.0"),
        ({"licence": "CC BY-NC 4.0", "commercial_use": False}, "CC BY-NC 4.0"),
    ):
        later = load_experiment(
            ROOT / "experiments" / "smoke.yaml", [overrides[0], f"corpora.soundscapes={json.dumps(shared | stated)}"]
        )
        capsys.readouterr()
        export.run(later)
        assert "renewed" in capsys.readouterr().err
        assert noted in (run.bundle / "NOTICE").read_text(encoding="utf-8")
        recorded = json.loads((run.bundle / MANIFEST).read_bytes())["provenance"]
        assert recorded == {"commit": "of the first export", "corpora": described_corpora(later)}
        export.run(later)
        assert "export: done already\n" in capsys.readouterr().err
    assert (run.bundle / "index" / "of the user").exists(), "an index is not lost for it"
    assert (run.bundle / "codec" / "codec.safetensors").stat().st_mtime_ns == codec
    files = ("NOTICE", "README.md", MANIFEST, "codec/codec.safetensors", EnsembleMetrics.FILE)
    assert not (run.bundle / SUMS).exists()
    assert read_sums(run.bundle) == {name: sha256_of(run.bundle / name) for name in files}


def test_a_bundle_that_weighs_ranks_holds_the_clips_that_they_compare_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = load_experiment(ROOT / "experiments" / "smoke.yaml", [f"storage_path={tmp_path}"])
    run, weighs = RunDirectory(experiment), Manifest("decoder_score", "rank_score/retriever-bge")
    for name in experiment.members:
        run.member(name).mkdir(parents=True)
    ensemble_metrics(experiment).write(run.ensemble)
    mark_done(run.ensemble, run.search_inputs())
    members = SimpleNamespace(references={"retriever-bge": np.eye(3, dtype=np.float32)})
    stand_in(monkeypatch, Codec(), weighs)
    monkeypatch.setattr(export, "TrainedMembers", lambda *_: members)
    export.run(experiment)
    np.testing.assert_array_equal(read_references(run.bundle)["retriever-bge"], np.eye(3))
    assert REFERENCES in read_sums(run.bundle)


def test_a_retriever_that_has_collapsed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = load_experiment(ROOT / "experiments" / "smoke.yaml", [f"storage_path={tmp_path}"])
    run = RunDirectory(experiment)
    monkeypatch.setattr(export, "checked_weights", lambda _: None)
    for number, (name, member) in enumerate(experiment.members.items()):
        values = {"text_cosine": 0.2, "audio_cosine": 0.97 if number == 0 else 0.2}
        MemberMetrics(
            member=name, kind=member.kind, split="validation", chosen_by="map@10", epochs=1, best=values,
            kept_epochs=[1], parameters=1, seconds=1.0, seed=0, commit="",
        ).write(run.member(name))  # fmt: skip
    export._check_members(experiment, run)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"export: {next(iter(experiment.members))}: the embeddings of clips are all but alike" in line
