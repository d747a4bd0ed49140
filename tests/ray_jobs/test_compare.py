"""enclap compare: differences, corrected p-values, refusals and outputs, of runs whose files are made up."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from models.errors import InputError, TooFewClipsError
from models.metrics.bootstrap import holm, paired_bootstrap
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.reporting.charts import THEME
from ray_jobs.reporting.comparable_runs import ComparableRun, ComparisonError
from ray_jobs.reporting.comparison import compare_runs
from ray_jobs.results.comparison import RunsComparison
from ray_jobs.results.metrics import CAPTION_VALUES, RETRIEVAL_VALUES, EnsembleMetrics
from ray_jobs.run.directory import MARKER, NotReadyError, RunDirectory, mark_done
from ray_jobs.run.recorded import open_run

from .conftest import ROOT, command
from .example_results import ensemble_metrics

CLIPS, EACH = 24, 3
SYSTEMS = {"captioning": ("ensemble", "captioner-wide/beam"), "retrieval": ("ensemble", "retriever-bge")}
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make a run that `combine` has scored, by its name and how much better than chance it is."""

    def made(name: str, better: float = 0.0, clips: range = range(CLIPS), **changes: Any) -> Path:
        where = [f"storage_path={tmp_path}", f"name={name}", f"seed={len(name)}"]
        directory = RunDirectory(load_experiment(ROOT / "experiments" / "smoke.yaml", where))
        directory.write_experiment()
        captions, queries = values(name, better, clips)
        directory.ensemble.mkdir()
        captions.to_parquet(directory.ensemble / CAPTION_VALUES)
        queries.to_parquet(directory.ensemble / RETRIEVAL_VALUES)
        by_system = queries.assign(**{"r@5": queries["rank"] <= 5}).groupby("system")[["map@10", "r@5"]].mean()
        means = captions.groupby("system")[["cider_d", "fer", "bleu_1"]].mean()
        means["bleu_1"] += 0.1  # of a whole corpus
        found = ensemble_metrics(directory.experiment, len(clips)).model_copy(
            update={
                "seed": directory.experiment.seed,
                "commit": f"commit-of-{name}",
                "captioning": means.to_dict("index"),
                "retrieval": by_system.to_dict("index"),
                **changes,
            }
        )
        found.write(directory.ensemble)
        mark_done(directory.ensemble, directory.results_inputs())
        return directory.root

    return made


def values(name: str, better: float, clips: range) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return made-up values of clips and queries, the rows of every run in another order."""
    rng = np.random.default_rng(sum(map(ord, name)))
    difficulty = np.random.default_rng(0).random(CLIPS)[[*clips]]
    clip_ids = [f"c{clip}" for clip in clips]
    captions = pd.concat(
        pd.DataFrame(
            {
                "system": system,
                "clip_id": clip_ids,
                "caption": "a sound",
                "cider_d": difficulty + better + rng.normal(0, 0.02, len(clips)),
                "fer": rng.random(len(clips)) - better,
                "bleu_1": difficulty,
            }
        )
        for system in SYSTEMS["captioning"]
    )
    ranks = rng.integers(1, 20, len(clips) * EACH)
    queries = pd.concat(
        pd.DataFrame(
            {
                "system": system,
                "clip_id": np.repeat(clip_ids, EACH),
                "caption": [
                    f"caption {k // 2} of {clip}" for clip in clip_ids for k in range(EACH)
                ],  # 0 and 1 are equal
                "rank": ranks,
                "map@10": np.where(ranks <= 10, 1 / ranks, 0),
            }
        )
        for system in SYSTEMS["retrieval"]
    )
    return captions.sample(frac=1, random_state=len(name)), queries.sample(frac=1, random_state=len(name))


def compared(*roots: Path, system: str = "ensemble", metrics: tuple[str, ...] = ()) -> RunsComparison:
    return compare_runs([ComparableRun.read(open_run(str(root))) for root in roots], system, metrics)


def edit(root: Path, file: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    path = root / "ensemble" / file
    change(pd.read_parquet(path)).to_parquet(path)


def edit_metrics(root: Path, **changes: Any) -> None:
    EnsembleMetrics.read(root / "ensemble").model_copy(update=changes).write(root / "ensemble")


# --- what is found -------------------------------------------------------------------------------------------------


def test_clips_are_paired_and_p_values_are_corrected_over_all_pairs(make: Make) -> None:
    roots = [make("a", 0.30), make("bb", 0.29), make("ccc")]
    found = compared(*roots, metrics=("cider_d",))
    (metric,) = found.metrics
    frames = {root.name: pd.read_parquet(root / "ensemble" / CAPTION_VALUES) for root in roots}
    own = {
        name: frame[frame["system"] == "ensemble"].set_index("clip_id")["cider_d"].sort_index()
        for name, frame in frames.items()
    }
    assert [(pair.a, pair.b) for pair in metric.pairs] == [("a", "bb"), ("a", "ccc"), ("bb", "ccc")]
    for pair in metric.pairs:
        assert pair.delta == pytest.approx(own[pair.a].mean() - own[pair.b].mean())
        single = paired_bootstrap(own[pair.a].to_numpy(), own[pair.b].to_numpy())
        assert (pair.ci95, pair.p_value) == (single.ci95, single.p_value)
        # clips are far more unlike than runs: the interval of unpaired values would be many times as wide
        assert pair.ci95[1] - pair.ci95[0] < own[pair.a].std()
    assert [pair.p_holm for pair in metric.pairs] == holm([pair.p_value for pair in metric.pairs]).tolist()
    assert [pair.better for pair in metric.pairs][1:] == ["a", "bb"]
    assert metric.values == pytest.approx({name: one.mean() for name, one in own.items()})


def test_every_number_says_what_it_is_of(make: Make) -> None:
    found = compared(make("a"), make("bb"))
    assert (found.corpus, found.corpus_kind, found.split, found.clips) == ("soundscapes", "soundscapes", "test", CLIPS)
    assert [(run.name, run.seed, run.commit, run.clips) for run in found.runs] == [
        ("a", 1, "commit-of-a", CLIPS),
        ("bb", 2, "commit-of-bb", CLIPS),
    ]
    assert [metric.metric for metric in found.metrics] == ["cider_d", "map@10"]
    assert found.metrics[0].settings == "aac-metrics 0.6.0, plain tokens"
    row = found.to_frame().set_index("metric").loc["map@10"]
    assert (row["items"], row["pairs"], row["seed_a"], row["commit_b"]) == (CLIPS * EACH, 1, 1, "commit-of-bb")
    assert row["place_a"].endswith("/a")
    assert not found.notes


def test_queries_of_a_clip_are_drawn_together_and_recalls_follow_from_ranks(make: Make) -> None:
    roots = [make("a"), make("bb")]
    found = compared(*roots, metrics=("r@5",)).metrics[0]
    own = []
    for root in roots:
        frame = pd.read_parquet(root / "ensemble" / RETRIEVAL_VALUES)
        frame = frame[frame["system"] == "ensemble"].sort_values(["clip_id", "caption"], kind="stable")
        own.append(frame.assign(value=(frame["rank"] <= 5).astype(float)))
    assert found.items == CLIPS * EACH
    groups = own[0]["clip_id"].to_numpy()
    expected = paired_bootstrap(own[0]["value"].to_numpy(), own[1]["value"].to_numpy(), groups=groups)
    assert found.pairs[0].delta == pytest.approx(expected.delta)
    assert found.pairs[0].ci95 == pytest.approx(expected.ci95)


def test_fewer_errors_are_better(make: Make) -> None:
    (pair,) = compared(make("a", 0.9), make("bb"), metrics=("fer",)).metrics[0].pairs
    assert pair.delta < 0
    assert pair.better == "a"


def test_another_system_of_the_runs(make: Make) -> None:
    roots = [make("a"), make("bb")]
    edit(roots[0], CAPTION_VALUES, lambda frame: frame[frame["system"] != "ensemble"])
    found = compared(*roots, system="captioner-wide/beam")
    assert [metric.metric for metric in found.metrics] == ["cider_d"]
    assert [metric.metric for metric in compared(*roots, system="retriever-bge").metrics] == ["map@10"]


def test_only_shared_clips_count_and_their_number_is_told(make: Make) -> None:
    a, b, c = make("a", clips=range(20)), make("bb", clips=range(4, CLIPS)), make("ccc")
    found = compared(a, b, c)
    assert found.clips == 16
    frame = pd.read_parquet(a / "ensemble" / CAPTION_VALUES)
    shared = frame[(frame["system"] == "ensemble") & frame["clip_id"].isin([f"c{clip}" for clip in range(4, 20)])]
    assert found.metrics[0].values["a"] == pytest.approx(shared["cider_d"].mean())
    assert found.metrics[1].items == 16 * EACH
    assert [run.clips for run in found.runs] == [20, 20, CLIPS]
    assert any("CIDEr-D weighs words" in note for note in found.notes)
    assert any("ranked among all clips of their own run" in note for note in found.notes)
    assert not compared(a, b, metrics=("fer",)).notes


# --- what is refused -----------------------------------------------------------------------------------------------


def test_other_splits_and_clips_are_refused(make: Make) -> None:
    a, b = make("a", clips=range(10)), make("bb", clips=range(10, CLIPS))
    with pytest.raises(
        ComparisonError, match=r"other test clips: .*/a was tested on split 'test'.*10 clips.*share none"
    ):
        compared(a, b)
    edit_metrics(b, split="validation")
    with pytest.raises(ComparisonError, match=r"other test splits: .*/a .* split 'test' .*/bb .* split 'validation'"):
        compared(a, b)
    with pytest.raises(TooFewClipsError, match="share 1 clip"):
        compared(a, make("ccc", clips=range(9, CLIPS)))


def test_clips_of_equal_names_are_refused_where_they_are_not_the_same(make: Make) -> None:
    a, b = make("a"), make("bb")
    edit(b, RETRIEVAL_VALUES, lambda frame: frame.replace("caption 1 of c7", "rain"))
    with pytest.raises(
        ComparisonError, match=r"24 clip names in both, 1 have .*'c7' has 'caption 1 of c7' in .*'rain'"
    ):
        compared(a, b)
    # without captions the settings of the corpus have to be the same
    (b / "ensemble" / RETRIEVAL_VALUES).unlink()
    assert compared(a, b, metrics=("cider_d",)).clips == CLIPS
    record = yaml.safe_load((b / "experiment.yaml").read_text(encoding="utf-8"))
    record["experiment"]["corpora"]["soundscapes"] |= {"seed": 7, "root": "elsewhere"}
    (b / "experiment.yaml").write_text(yaml.safe_dump(record), encoding="utf-8")
    with pytest.raises(ComparisonError, match=r"other corpora: .*, with seed 0 and 7; without"):
        compared(a, b, metrics=("cider_d",))


@pytest.mark.parametrize(("field", "value"), [("library", "aac-metrics 0.5.0"), ("preprocessing", "ptb")])
def test_other_settings_of_metrics_are_refused(make: Make, field: str, value: str) -> None:
    a, b = make("a"), make("bb")
    details = EnsembleMetrics.read(b / "ensemble").captioning_details
    edit_metrics(b, captioning_details=details.model_copy(update={field: value}))
    with pytest.raises(ComparisonError, match=rf"captioning metrics: .*/a has .*plain tokens, .*/bb of .*{value}"):
        compared(a, b)
    assert compared(a, b, metrics=("map@10",)).metrics
    edit_metrics(b, retrieval_details={"retrieval": "another way"})
    with pytest.raises(ComparisonError, match=r"retrieval metrics: .* another way"):
        compared(a, b, metrics=("map@10",))


def test_metrics_that_are_no_mean_over_clips_are_refused(make: Make) -> None:
    with pytest.raises(ComparisonError, match=r"'bleu_1': .*/a has .* needs a metric that is a mean over clips"):
        compared(make("a"), make("bb"), metrics=("bleu_1",))


def test_bad_input_is_named(make: Make, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    a, b = make("a"), make("bb")
    with pytest.raises(InputError, match="found 1 run, expected at least two"):
        compared(a)
    with pytest.raises(InputError, match=r"/a: given 2 times"):
        compared(a, b, a)
    with pytest.raises(InputError, match=r"'spice': .*/a has no such .* not computed: needs Java"):
        compared(a, b, metrics=("spice",))
    with pytest.raises(InputError, match=r"'rougel': .*expected one of .*cider_d.*map@10"):
        compared(a, b, metrics=("rougel",))
    with pytest.raises(InputError, match=r"--system 'x': .*/a has captioner-wide/beam, ensemble"):
        compared(a, b, system="x")
    edit(b, CAPTION_VALUES, lambda frame: frame.assign(cider_d=frame["cider_d"].mask(frame["clip_id"] == "c3")))
    with pytest.raises(ComparisonError, match=r"/bb: 'cider_d' of clip 'c3' of ensemble is not finite"):
        compared(a, b)
    (b / "ensemble" / CAPTION_VALUES).unlink()
    with pytest.raises(ComparisonError, match=r"/bb: has no values of single clips of ensemble by 'cider_d'"):
        compared(a, b)
    (b / "ensemble" / EnsembleMetrics.FILE).unlink()
    with pytest.raises(NotReadyError, match="run `enclap combine` on the file of bb"):
        compared(a, b)
    assert command("compare", str(a), str(tmp_path / "nowhere")) == 2
    assert "nowhere/experiment.yaml: no such file" in capsys.readouterr().err
    assert command("compare", str(a), str(b), "--plot", "plot.gif") == 2
    assert "--plot plot.gif: found '.gif', expected .png, .svg, .pdf" in capsys.readouterr().err
    assert command("compare", str(a), str(b), "--csv", "-", "--json") == 2
    assert "both print to standard output" in capsys.readouterr().err


# --- the command ---------------------------------------------------------------------------------------------------


def test_tables_csv_and_json(make: Make, capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> None:
    roots = [str(make("a", 0.3)), str(make("bb")), str(make("ccc"))]
    assert command("compare", *roots, "--csv", str(tmp_path / "out" / "pairs.csv")) == 0
    shown = capfdbinary.readouterr().out.decode()
    assert "ensemble on the test split of soundscapes (soundscapes), all 24 clips" in shown
    assert (
        "CIDEr-D (aac-metrics 0.6.0, plain tokens): paired bootstrap over 24 clips, 10,000 resamples, seed 0" in shown
    )
    assert "Holm over 3 pairs" in shown
    lines = [line.split() for line in shown.splitlines()]
    (row,) = (line for line in lines if line[:2] == ["a", "ccc"] and line[-1] == "a")
    frame = pd.read_csv(tmp_path / "out" / "pairs.csv").set_index(["metric", "a", "b"])
    pair = frame.loc[("cider_d", "a", "ccc"), :]
    assert row[2:6] == [f"{pair['delta']:+.3f}", f"{pair['delta_low']:+.3f}", "to", f"{pair['delta_high']:+.3f}"]
    assert len(frame) == 6
    assert command("compare", *roots, "--csv", "-") == 0
    printed, said = capfdbinary.readouterr()
    assert printed == (tmp_path / "out" / "pairs.csv").read_bytes()
    assert b"Holm over 3 pairs" in said
    assert command("compare", *roots, "--json", "--metric", "map@10") == 0
    found = RunsComparison.model_validate(json.loads(capfdbinary.readouterr().out))
    assert [metric.metric for metric in found.metrics] == ["map@10"]
    pairs = {(one.a, one.b): one.delta for one in found.metrics[0].pairs}
    assert pairs["a", "bb"] == pytest.approx(frame.loc[("map@10", "a", "bb"), :]["delta"])


def test_runs_of_one_name_are_told_apart(make: Make, tmp_path: Path) -> None:
    a = make("a")
    (tmp_path / "elsewhere").mkdir()
    copied = (tmp_path / "elsewhere" / "a").absolute()
    subprocess.run(["cp", "-r", str(a), str(copied)], check=True)
    assert [run.name for run in compared(a, copied).runs] == [str(a), str(copied)]
    (pair,) = compared(a, copied, metrics=("cider_d",)).metrics[0].pairs
    assert (pair.delta, pair.p_holm, pair.better) == (0.0, 1.0, None)


def test_values_of_other_settings_are_told(make: Make) -> None:
    a, b = make("a"), make("bb")
    mark_done(a / "ensemble", "other inputs")
    assert compared(a, b).notes == ["a: these values are of other settings than the experiment has now"]
    (a / "ensemble" / MARKER).unlink()
    assert not compared(a, b).notes


def test_forest_plot(make: Make, tmp_path: Path) -> None:
    roots = [str(make("a", 0.3)), str(make("bb"))]
    stand_ins = dict(THEME)
    for name in ("forest.svg", "forest.png"):
        assert command("compare", *roots, "--plot", str(tmp_path / name)) == 0
    assert stand_ins == THEME
    svg = (tmp_path / "forest.svg").read_text(encoding="utf-8")
    texts = "".join(ElementTree.fromstring(svg).itertext())
    assert "difference in CIDEr-D, 24 clips" in texts
    assert texts.count("a − bb") == 2
    assert not [colour for colour in THEME.values() if colour in svg]
    with Image.open(BytesIO((tmp_path / "forest.png").read_bytes())) as image:
        assert image.width > 1000
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_neither_ray_nor_torch_is_loaded(make: Make, tmp_path: Path) -> None:
    code = (
        "import sys; from ray_jobs.compare import run; run(sys.argv[1:3], [], 'ensemble'); "
        "assert not {'torch', 'ray', 'transformers', 'matplotlib'} & set(sys.modules), sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(make("a")), str(make("bb"))], check=True, cwd=ROOT, timeout=300)
