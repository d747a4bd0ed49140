"""enclap status on run directories in every state, made with what the jobs make them with."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from models.errors import InputError
from models.records import RecordError
from ray_jobs import cli
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.results.best import BestSweep
from ray_jobs.results.member import MemberMetrics, MemberProgress, note_failure
from ray_jobs.run.directory import MARKER, RunDirectory, is_done, mark_done
from ray_jobs.run.lock import LEASE_S, LOCK, only_writer
from ray_jobs.status import MemberStatus, Part, read_status

from .conftest import ROOT
from .example_results import best_reranking, best_retrieval, best_sampling

SEARCHES = ("retrieval", "sampling", "reranking")


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run that has not begun: experiment.yaml alone."""
    overrides = [f"storage_path={tmp_path}", "members.captioner-wide.training.epochs=10"]
    directory = RunDirectory(load_experiment(ROOT / "experiments" / "smoke.yaml", overrides))
    directory.write_experiment()
    return directory


def prepare(run: RunDirectory, done: bool = True) -> None:
    features = run.features("soundscapes")
    for split, shards in {"train": 3, "validation": 1, "test": 1}.items():
        (features / split).mkdir(parents=True)
        for number in range(shards):
            (features / split / f"{number:05d}.arrow").touch()
    if done:
        pd.DataFrame({"clip_id": ["a", "b"]}).to_parquet(features / "quarantine.parquet")
        mark_done(features, run.features_inputs())


def finish(run: RunDirectory, name: str) -> None:
    MemberMetrics(
        member=name,
        kind=run.experiment.members[name].kind,
        split="validation",
        chosen_by="map@10",
        epochs=2,
        best={"epoch": 2, "seconds": 3.0, "train_loss": 0.5, "map@10": 0.25},
        kept_epochs=[2],
        parameters=100,
        seconds=6.0,
        seed=0,
        commit="unknown",
    ).write(run.member(name))
    mark_done(run.member(name), run.member_inputs(name))


def begin(run: RunDirectory, name: str, **more: object) -> None:
    """As after four of ten epochs of a minute and a quarter of the fifth, half a minute ago."""
    (run.checkpoints / f"{name}-{run.member_inputs(name)}").mkdir(parents=True)
    progress = MemberProgress(
        epoch=4,
        epochs=10,
        step=25,
        steps=100,
        seconds=240.0,
        updated=time.time() - 30,
        values={"epoch": 4, "seconds": 60.0, "learning_rate": 1e-3, "train_loss": 1.5, "caption_loss": 2.25},
    )
    progress.model_copy(update=more).write(run.member(name))


def member(run: RunDirectory, name: str) -> MemberStatus:
    return next(member for member in read_status(run.root).members if member.name == name)


def test_before_anything(run: RunDirectory) -> None:
    status = read_status(run.root)
    parts: list[Part | MemberStatus] = [*status.corpora, *status.members, *status.searches, *status.results]
    assert {part.state for part in parts} == {"waiting"}
    assert member(run, "captioner-wide").note == "for retriever-bge"
    assert status.owner is None
    assert not status.needs_help


def test_preparing(run: RunDirectory) -> None:
    prepare(run, done=False)
    assert read_status(run.root).corpora[0].state == "stopped"
    with only_writer(run.root):
        corpus = read_status(run.root).corpora[0]
        assert corpus.state == "running"
        assert corpus.details == {"shards": {"train": 3, "validation": 1, "test": 1}, "quarantined": None}


def test_training(run: RunDirectory) -> None:
    prepare(run)
    finish(run, "retriever-bge")
    begin(run, "captioner-wide")
    with only_writer(run.root):
        status = read_status(run.root)
        assert status.owner is not None
        assert status.owner.pid == os.getpid()
        assert status.corpora[0].details["quarantined"] == 2
        done, training = member(run, "retriever-bge"), member(run, "captioner-wide")
        assert (done.state, done.validation, done.seconds_per_epoch) == ("done", {"map@10": 0.25}, 3.0)
        assert (training.state, training.epoch, training.epochs) == ("running", 4, 10)
        assert (training.train_loss, training.validation) == (1.5, {"caption_loss": 2.25})
        assert (training.seconds_per_epoch, training.step, training.steps) == (60.0, 25, 100)
        assert training.eta_s == pytest.approx(5.75 * 60 - 30, abs=2)
        assert member(run, "captioner-deep").note == "for retriever-bert"


def test_stopped_failed_and_outdated(run: RunDirectory) -> None:
    begin(run, "captioner-wide")
    begin(run, "captioner-deep", error="loss nan")
    (run.checkpoints / f"fluency-{run.member_inputs('fluency')}").mkdir()
    mark_done(run.member("retriever-bge"), "of other settings")
    (run.member("retriever-bert") / "progress.json").parent.mkdir(parents=True)
    (run.member("retriever-bert") / "progress.json").write_text("{")  # of other settings: nothing is begun
    wide, deep = member(run, "captioner-wide"), member(run, "captioner-deep")
    assert (wide.state, wide.epoch, wide.eta_s) == ("stopped", 4, None)
    assert (deep.state, deep.note) == ("failed", "loss nan")
    assert (member(run, "fluency").state, member(run, "fluency").epoch) == ("stopped", None)
    assert member(run, "retriever-bge").state == "outdated"
    assert member(run, "retriever-bert").state == "waiting"


def test_before_the_first_epoch_is_done(run: RunDirectory) -> None:
    begin(run, "captioner-wide", epoch=0, seconds=0.0, values={})
    with only_writer(run.root):
        wide = member(run, "captioner-wide")
        assert (wide.state, wide.epoch, wide.step, wide.eta_s) == ("running", 0, 25, None)


def test_a_training_that_failed_before_its_first_checkpoint(run: RunDirectory) -> None:
    (run.checkpoints / f"captioner-wide-{run.member_inputs('captioner-wide')}").mkdir(parents=True)
    note_failure(run.member("captioner-wide"), 10, "out of memory")
    wide = member(run, "captioner-wide")
    assert (wide.state, wide.note, wide.epoch) == ("failed", "out of memory", None)
    begin(run, "captioner-deep")
    note_failure(run.member("captioner-deep"), 10, "loss nan")
    deep = member(run, "captioner-deep")
    assert (deep.state, deep.note, deep.epoch) == ("failed", "loss nan", 4), "the last epoch is kept"


def test_an_owner_that_was_not_heard_of_is_none(run: RunDirectory) -> None:
    begin(run, "captioner-wide")
    with only_writer(run.root):
        assert member(run, "captioner-wide").state == "running"
        os.utime(run.root / LOCK, (time.time() - LEASE_S - 1,) * 2)
        assert read_status(run.root).owner is None
        assert member(run, "captioner-wide").state == "stopped"


def test_searching_until_done(run: RunDirectory) -> None:
    for name in run.experiment.members:
        finish(run, name)
    inputs, e = run.search_inputs(), run.experiment
    best = {"retrieval": best_retrieval(e), "sampling": best_sampling(e, value=0.5), "reranking": best_reranking(e)}
    states = []
    with only_writer(run.root):
        for what in SEARCHES:
            states.append([part.state for part in read_status(run.root).searches])
            best[what].write(run.search(what))
            pd.DataFrame({"cider_d": [0.4, 0.5]}).to_parquet(run.search(what) / "trials.parquet")
            mark_done(run.search(what), inputs)
        status = read_status(run.root)
        assert [part.state for part in status.results] == ["running", "waiting", "waiting"]
    assert states == [["running", "waiting", "waiting"], ["done", "running", "waiting"], ["done", "done", "running"]]
    assert status.searches[0].details == {"map@10": 0.41, "trials": 2}
    assert status.searches[1].details == {"objective": "cider_d", "value": 0.5, "trials": 2}
    for path in (run.ensemble, run.bundle, run.report):
        mark_done(path, inputs)
    assert {part.state for part in read_status(run.root).results} == {"done"}


def test_sweeps_are_shown_once_they_are_done(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    best = BestSweep(
        member="fluency",
        settings={"training.learning_rate": 0.01},
        chosen_by="f1",
        value=0.75,
        own_value=None,
        trials=4,
        split="validation",
        seed=0,
        commit="unknown",
    )
    best.write(run.sweep("fluency"))
    assert read_status(run.root).sweeps == []
    mark_done(run.sweep("fluency"), "of whatever settings")
    (sweep,) = read_status(run.root).sweeps
    assert (sweep.name, sweep.state) == ("fluency", "done")
    assert sweep.details == {"chosen_by": "f1", "value": 0.75, "own_value": None, "trials": 4}
    with pytest.raises(SystemExit):
        cli.main(["status", str(run.root)])
    assert "chosen_by f1  value 0.750  trials 4" in capsys.readouterr().out
    (run.sweep("fluency") / "best.json").write_text("{")
    with pytest.raises(RecordError, match=r"best\.json: not JSON .*run `enclap sweep` again"):
        read_status(run.root)


@pytest.mark.parametrize("content", [b'{"inputs": "', b"\xff", b"null", b""])
def test_a_marker_that_cannot_be_read_marks_nothing(run: RunDirectory, content: bytes) -> None:
    finish(run, "retriever-bge")
    assert is_done(run.member("retriever-bge"), run.member_inputs("retriever-bge"))
    (run.member("retriever-bge") / MARKER).write_bytes(content)
    assert not is_done(run.member("retriever-bge"), run.member_inputs("retriever-bge"))
    assert member(run, "retriever-bge").state == "outdated"


def test_tables_that_cannot_be_read_are_shown_as_such(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(run)
    (run.features("soundscapes") / "quarantine.parquet").write_bytes(b"PAR1")
    for what, best in (("retrieval", best_retrieval), ("sampling", best_sampling)):
        best(run.experiment).write(run.search(what))
        mark_done(run.search(what), run.search_inputs())
    pd.DataFrame({"cider_d": [0.4, 0.5]}).to_parquet(run.search("sampling") / "trials.parquet")
    os.truncate(run.search("sampling") / "trials.parquet", 100)
    status = read_status(run.root)
    assert status.corpora[0].details["quarantined"] == "unknown: quarantine.parquet is damaged"
    assert [part.details["trials"] for part in status.searches[:2]] == [
        "unknown: trials.parquet is missing",
        "unknown: trials.parquet is damaged",
    ]
    with pytest.raises(SystemExit) as error:
        cli.main(["status", str(run.root)])
    assert error.value.code == 0
    assert "trials unknown: trials.parquet is missing" in capsys.readouterr().out


def test_an_experiment_that_cannot_be_read_is_named_and_written_anew(run: RunDirectory) -> None:
    path = run.root / "experiment.yaml"
    whole = path.read_bytes()
    before_member = whole.rindex(b"    kind: ")  # a cut there leaves YAML, in which a member has no kind
    after_experiment = whole.index(b"provenance:")  # and here defaults would stand for what is missing
    for damaged, problem in (
        (b"a: [", "not YAML"),
        (b"a: \xff", "not YAML"),
        (b"", "found no key 'experiment'"),
        (whole[:before_member], "cut: found no key 'provenance'"),
        (whole[:after_experiment], "cut: found no key 'provenance'"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=rf"experiment\.yaml: {problem}.* copy it again, or remove it"):
            read_status(run.root)
        run.write_experiment()
        assert path.read_bytes() == whole


def test_the_command(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        cli.main(["status", str(run.root)])
    assert error.value.code == 0
    assert "nobody is working on it" in capsys.readouterr().out
    begin(run, "captioner-wide")
    with pytest.raises(SystemExit):
        cli.main(["status", str(run.root)])
    printed = capsys.readouterr()
    assert "stopped" in printed.out
    assert "time left  note" in printed.out
    assert "the command that began it resumes" in printed.err, "advice is not data"
    with pytest.raises(SystemExit) as error:
        cli.main(["status", str(run.root), "--json"])
    assert error.value.code == 1
    read = json.loads(capsys.readouterr().out)
    assert [found["name"] for found in read["members"]] == list(run.experiment.members)
    with pytest.raises(SystemExit) as error:
        cli.main(["status", str(run.root.parent)])
    assert error.value.code == 2
    assert "expected a run directory" in capsys.readouterr().err


def test_an_experiment_file_stands_for_its_run(
    run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under its present settings: what other ones made is outdated."""
    finish(run, "fluency")
    file = str(ROOT / "experiments" / "smoke.yaml")

    def state(*overrides: str) -> str:
        with pytest.raises(SystemExit):
            cli.main(["status", file, f"storage_path={run.root.parent}", *overrides, "--json"])
        found = {one["name"]: one["state"] for one in json.loads(capsys.readouterr().out)["members"]}
        return str(found["fluency"])

    assert state() == "done"
    assert state("members.fluency.training.learning_rate=0.5") == "outdated"
    for job in ("status", "report", "leaderboard"):
        with pytest.raises(SystemExit) as error:
            cli.main([job, file, f"storage_path={tmp_path}/nowhere"])
        assert error.value.code == 2
        assert f"{tmp_path}/nowhere/smoke: no such run yet; `enclap p" in capsys.readouterr().err
        with pytest.raises(SystemExit) as error:
            cli.main([job, str(run.root), "seed=1"])
        assert error.value.code == 2
        assert "a run is shown as it was made" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("command", ["status", "report", "leaderboard", "doctor"])
def test_the_record_of_a_run_is_told_from_an_experiment(
    command: str, run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    for given in [run.root / "experiment.yaml", *([run.root] if command == "doctor" else [])]:
        with pytest.raises(SystemExit) as ended:
            cli.main([command, str(given)])
        assert ended.value.code == 2
        said = " ".join(capsys.readouterr().err.split())
        assert f"{run.root / 'experiment.yaml'}: found the record of a run, expected the experiment file" in said
        assert f"take the run's directory, {run.root}" in said


def test_a_report_needs_no_ray(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ray.init", lambda *_, **__: pytest.fail("started Ray"))
    with pytest.raises(SystemExit) as error:
        cli.main(["report", str(run.root)])
    assert error.value.code == 2
    assert "ensemble does not exist yet; run `enclap combine`" in capsys.readouterr().err


def test_light_and_on_a_copy(run: RunDirectory, tmp_path: Path) -> None:
    """From another terminal, perhaps of another machine: no path of the machine that trains."""
    finish(run, "retriever-bge")
    moved = run.root.rename(tmp_path / "a copy")
    done = without_heavy_imports("status", str(moved), "--json")
    assert json.loads(done)["members"][0]["state"] == "done"


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"]])
def test_help_is_light(arguments: list[str]) -> None:
    assert "Usage: enclap" in without_heavy_imports(*arguments)


def without_heavy_imports(*arguments: str) -> str:
    """Run a command in a process of its own, which must load none of the heavy packages; return what it printed."""
    script = (
        "import sys\nfrom ray_jobs import cli\ntry:\n    cli.main(sys.argv[1:])\n"
        "finally:\n    assert not {'ray', 'torch', 'transformers'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- other versions ------------------------------------------------------------------------------------------------


@pytest.fixture
def old_run(tmp_path: Path) -> Path:
    """A copy of the run directory that version 0.1 wrote for experiments/smoke.yaml, with one of its members."""
    return Path(shutil.copytree(Path(__file__).with_name("run_of_0.1"), tmp_path / "smoke"))


def test_a_run_of_version_0_1_is_read(old_run: Path) -> None:
    status = read_status(old_run)
    wide = next(member for member in status.members if member.name == "captioner-wide")
    assert (wide.state, wide.epoch, wide.validation) == ("done", 2, {"caption_loss": 5.706820678710938})
    assert {member.state for member in status.members if member is not wide} == {"waiting"}


def test_files_of_an_unknown_version_are_refused_with_what_to_do(
    old_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = old_run / "members" / "captioner-wide" / "metrics.json"
    metrics.write_text(metrics.read_text().replace('"chosen_by"', '"selected_by"'))
    with pytest.raises(SystemExit) as error:
        cli.main(["status", str(old_run)])
    assert error.value.code == 2
    said = capsys.readouterr().err
    assert "captioner-wide/metrics.json: field 'chosen_by' is missing" in said
    assert "run `enclap train` again" in said
    experiment = old_run / "experiment.yaml"
    experiment.write_text(experiment.read_text().replace("  target_corpus:", "  goal: best\n  target_corpus:"))
    with pytest.raises(SystemExit) as error:
        cli.main(["status", str(old_run)])
    assert error.value.code == 2
    said = capsys.readouterr().err
    assert "experiment.yaml: found field 'goal', which this version does not know" in said
    assert "wrote it: read it with that one, or run the experiment again" in said
