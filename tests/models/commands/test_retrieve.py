"""`enclap retrieve` and `enclap similar`: filters, what is not wanted, windows, and how what is found is printed."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

from models.commands import cli, index, matches, running
from models.commands.options import MatchFormat
from models.ensemble import Ensemble, Match
from models.ensemble.filters import Where
from models.ensemble.index_search import MARGIN
from models.errors import QueryError
from tests.small_bundle import write_bundle, write_sounds


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_sounds(tmp_path_factory.mktemp("sounds").resolve(), 4)


@pytest.fixture(scope="module")
def indexed(sounds: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = write_bundle(tmp_path_factory.mktemp("exported") / "bundle")
    index.run(bundle, sounds)
    return bundle


@pytest.fixture(scope="module")
def windowed(sounds: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = write_bundle(tmp_path_factory.mktemp("windowed") / "bundle")
    index.run(bundle, sounds, index.Options(window_s=0.5, hop_s=0.25))
    return bundle


def enclap(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run a command; return its exit code, and what it printed."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        running.run_app(cli.app, [str(one) for one in arguments])
    code = ended.value.code
    assert isinstance(code, int)
    return code, *capsys.readouterr()


def test_a_command_that_is_stopped_says_that_it_resumes(
    indexed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("models.commands.retrieve.run", stop)
    code, _, said = enclap(capsys, "retrieve", indexed, "a dog barks")
    assert (code, said) == (130, "stopped; the same command resumes\n")


def test_filters_leave_similarities_as_they_are(indexed: Path, sounds: list[Path]) -> None:
    ensemble = Ensemble.load(indexed, device="cpu")
    whole = {match.path: match.similarity for match in ensemble.retrieve("a dog barks")}
    assert {*whole} == {*map(str, sounds)}
    some = ensemble.retrieve("a dog barks", where=Where(name="sound-[13].wav"))
    assert {match.path for match in some} == {str(sounds[1]), str(sounds[3])}
    assert all(match.similarity == whole[match.path] for match in some)
    long = ensemble.similar(sounds[0], where=Where(min_duration_s=1.4))
    assert {match.path for match in long} == {str(sounds[2]), str(sounds[3])}
    with pytest.raises(QueryError, match="none of 4 indexed files meets: name rain, duration >= 1 s"):
        ensemble.retrieve("a dog barks", where=Where(name="rain", min_duration_s=1))


def test_what_is_not_wanted_lowers_the_similarity_by_the_documented_formula(indexed: Path) -> None:
    ensemble = Ensemble.load(indexed, device="cpu")
    wanted = ensemble.retrieve("a dog barks")
    found = ensemble.retrieve("a dog barks", exclude="rain falls")
    assert {match.path for match in found} == {match.path for match in wanted}
    similarities = [match.similarity for match in found]
    assert similarities == sorted(similarities, reverse=True)
    scaled = []
    for ranked in (wanted, ensemble.retrieve("rain falls")):
        values = np.array([match.similarity for match in sorted(ranked, key=lambda one: one.path)])
        scaled.append((values - values.mean()) / values.std())
    expected = scaled[0] - MARGIN * np.maximum(scaled[1], 0)
    by_path = [match.similarity for match in sorted(found, key=lambda one: one.path)]
    np.testing.assert_allclose(by_path, expected, atol=1e-4)
    assert not np.allclose(expected, scaled[0])
    with pytest.raises(QueryError, match="blank"):
        ensemble.retrieve("a dog barks", exclude=" ")


def test_windows_come_with_their_times_each_file_once_unless_all_are_asked_for(
    windowed: Path, sounds: list[Path]
) -> None:
    ensemble = Ensemble.load(windowed, device="cpu")
    every = ensemble.retrieve("a dog barks", 100, all_windows=True)
    assert len(every) == 3 + 4 + 5 + 6
    best = ensemble.retrieve("a dog barks")
    assert {match.path for match in best} == {*map(str, sounds)}
    for match in best:
        of_file = [one for one in every if one.path == match.path]
        assert match == max(of_file, key=lambda one: one.similarity)
        assert match.start_s is not None
        assert match.end_s == pytest.approx(match.start_s + 0.5)
    again = Ensemble.load(windowed, device="cpu")
    again.index([sounds[0]], window_s=1.0)
    (only,) = again.retrieve("a dog barks", where=Where(name=sounds[0].name), all_windows=True)
    assert (only.start_s, only.end_s) == (0.0, 1.0), "other windows take the place of those of before"
    again.index([sounds[0]])
    (only,) = again.retrieve("a dog barks", where=Where(name=sounds[0].name))
    assert only.start_s is None


def test_formats_for_programs(indexed: Path, windowed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = Ensemble.load(windowed, device="cpu").retrieve("a dog barks", 2)
    _, printed, _ = enclap(capsys, "retrieve", windowed, "a dog barks", "--top-k", 2, "--format", "json")
    lines = [json.loads(line) for line in printed.splitlines()]
    assert [line.pop("rank") for line in lines] == [1, 2]
    assert [Match(**line) for line in lines] == expected
    _, printed, _ = enclap(capsys, "retrieve", windowed, "a dog barks", "--top-k", 2, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert [row["path"] for row in rows] == [match.path for match in expected]
    assert [float(row["start_s"]) for row in rows] == [match.start_s for match in expected]
    assert [float(row["similarity"]) for row in rows] == [match.similarity for match in expected]
    _, printed, _ = enclap(capsys, "retrieve", indexed, "a dog barks", "--format", "csv")
    assert printed.startswith("rank,similarity,path\n1,"), "whole files have no times"
    _, printed, _ = enclap(capsys, "retrieve", windowed, "a dog barks", "--format", "table", "--top-k", 1)
    assert "from s" in printed
    assert expected[0].path in printed
    _, printed, _ = enclap(capsys, "similar", windowed, expected[0].path, "--top-k", 1)
    assert printed.split()[0] == "1"
    assert printed.rstrip().endswith(" s")


def test_names_are_quoted_and_escaped(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    odd = [Match('a, "b"\udcff.wav', 0.5), Match("[c].wav", 0.25, 1.0, 2.0)]
    for wanted in MatchFormat:
        matches.print_matches(odd, 2, wanted)
        printed = capsysbinary.readouterr().out
        assert b"[c].wav" in printed
        if wanted is MatchFormat.CSV:
            assert printed == (
                b'rank,similarity,path,start_s,end_s\n1,0.5,"a, ""b""\xff.wav",,\n2,0.25,[c].wav,1.000,2.000\n'
            )
    matches.print_matches(odd, 2)
    assert capsysbinary.readouterr().out == (b'  1     0.500  a, "b"\xff.wav\n  2     0.250  [c].wav  1.000-2.000 s\n')


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["rain", "--name", "rain*.wav"], "none of 4 indexed files meets: name rain*.wav"),
        (["rain", "--min-duration", "60"], "none of 4 indexed files meets: duration >= 60 s"),
        (["rain", "--min-duration", "3", "--max-duration", "2"], "min_duration_s: found 3.0, expected no more than"),
        (["  ", "--not", "rain"], "the query is blank"),
        (["rain", "--not", "?!"], "--not is blank, expected words"),
        (["rain", "--window", "1"], "--window is for files that are named here"),
        (["rain", "--queries", "captions.csv", "--not", "wind"], "--queries ranks all files for a submission"),
    ],
)
def test_what_cannot_be_answered_ends_with_2(
    options: list[str], message: str, indexed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed, said = enclap(capsys, "retrieve", indexed, *options)
    assert (code, printed) == (2, "")
    assert message in said


def test_fewer_results_than_asked_for_are_listed_and_told(indexed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, said = enclap(capsys, "retrieve", indexed, "rain", "--top-k", 1000)
    assert (code, len(printed.splitlines())) == (0, 4)
    assert "found 4 results, asked for 1000: there are no more" in said
    code, printed, said = enclap(capsys, "retrieve", indexed, "rain", "--top-k", 0)
    assert (code, printed) == (2, "")


def test_a_query_that_is_longer_than_what_is_read_is_told_once(
    indexed: Path, sounds: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, said = enclap(capsys, "retrieve", indexed, "rain " * 1000, "--not", "wind " * 1000)
    assert (code, said.count("is cut")) == (0, 1)
    assert re.search(r"a text of 1000 words is cut: its first \d+ tokens are embedded, and no more", said)
    for query in ("rain falls on the roof", "rain falls on the roof " * 3):
        assert "is cut" not in enclap(capsys, "retrieve", indexed, query)[2]


def test_files_that_are_named_are_searched_in_windows(
    indexed: Path, sounds: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--window", 0.5, "--hop", 0.25, "--all-windows", "--top-k", 50]
    code, printed, _ = enclap(capsys, "retrieve", indexed, "rain", *sounds[:2], *options)
    assert (code, len(printed.splitlines())) == (0, 7)
    assert len(Ensemble.load(indexed, device="cpu").audio_index) == 4, "the index is as it was"
