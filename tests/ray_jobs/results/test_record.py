"""best.json and metrics.json: read as they were written, in the keys that users know, and refused by file and field."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from models.errors import InputError
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.results.best import BestReranking, BestRetrieval, BestSampling, DirectionWeights
from ray_jobs.results.metrics import EnsembleMetrics, LeftOut
from ray_jobs.results.record import ResultRecord
from ray_jobs.results.table import read_table

from ..conftest import ROOT
from ..example_results import best_reranking, best_retrieval, best_sampling, ensemble_metrics

WORTH = ["cross_validated", "optimism", "best_value"]


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return load_experiment(ROOT / "experiments" / "smoke.yaml")


def written(record: ResultRecord, directory: Path) -> dict[str, Any]:
    record.write(directory)
    content: dict[str, Any] = json.loads((directory / record.FILE).read_text(encoding="utf-8"))
    return content


def edited(record: ResultRecord, directory: Path, **changes: Any) -> None:
    content = {key: value for key, value in (written(record, directory) | changes).items() if value != "left out"}
    (directory / record.FILE).write_text(json.dumps(content), encoding="utf-8")


def test_what_is_written_is_read(experiment: Experiment, tmp_path: Path) -> None:
    made: list[ResultRecord] = [best_sampling(experiment), best_reranking(experiment), best_retrieval(experiment)]
    for record in [*made, ensemble_metrics(experiment)]:
        record.write(tmp_path)
        assert type(record).read(tmp_path) == record


def test_files_have_the_keys_that_users_know(experiment: Experiment, tmp_path: Path) -> None:
    assert list(written(best_sampling(experiment), tmp_path)) == [
        "candidates",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "typical_p",
        "epsilon_cutoff",
        "repetition_penalty",
        "min_tokens",
        "max_tokens",
        "no_repeat_ngram",
        "static_cache",
        "objective",
        "value",
        *WORTH,
        "rule",
        "clips",
        "trials",
        "trials_on_all_clips",
        "generating_s",
        "trial_s",
        "elapsed_s",
        "overhead",
        "split",
        "seed",
    ]
    assert list(written(best_reranking(experiment), tmp_path)) == [
        "weights",
        "normalisation",
        "fluency_threshold",
        "captioners",
        "encoder_score",
        "fallback",
        "objective",
        "value",
        *WORTH,
        "within_one_standard_error",
        "rule",
        "filtered",
        "unfiltered",
        "absent",
        "split",
        "seed",
    ]
    direction = ["weights", "normalisation", "rrf_k", "map@10", *WORTH, "within_one_standard_error", "rule"]
    text_to_audio = best_retrieval(experiment)
    assert list(written(text_to_audio, tmp_path)) == [*direction, "split", "seed"]
    both = text_to_audio.model_copy(update={"audio_to_text": text_to_audio.convert(DirectionWeights)})
    content = written(both, tmp_path)
    assert list(content) == [*direction, "audio-to-text", "split", "seed"]
    assert list(content["audio-to-text"]) == direction
    assert BestRetrieval.read(tmp_path) == both
    assert list(written(ensemble_metrics(experiment), tmp_path)) == [
        "corpus",
        "corpus_kind",
        "split",
        "clips",
        "seed",
        "commit",
        "packages",
        "captioning",
        "captioning_details",
        "retrieval",
        "retrieval_audio_to_text",
        "retrieval_details",
        "retrieval_chance_map@10",
        "comparisons",
        "leave_one_out",
        "forward_selection",
        "fluency_detector",
    ]
    transport = {"ensemble": {"map@10": 0.5}}
    assert written(ensemble_metrics(experiment, retrieval_transport=transport), tmp_path)["retrieval_transport"]


def test_the_setting_alone_is_what_a_bundle_takes(experiment: Experiment) -> None:
    assert best_sampling(experiment).sampling == experiment.sampling
    assert best_reranking(experiment, captioners=["a"]).reranking.captioners == ["a"]
    assert best_retrieval(experiment, rrf_k=7).fusion.rrf_k == 7


def test_a_member_left_out_by_an_earlier_version_is_read(experiment: Experiment, tmp_path: Path) -> None:
    rows = ensemble_metrics(experiment).model_dump()["leave_one_out"]
    along = [{("along" if key == "dependents" else key): value for key, value in row.items()} for row in rows]
    along[0]["along"] = ["joint"]
    edited(ensemble_metrics(experiment), tmp_path, leave_one_out=along)
    assert EnsembleMetrics.read(tmp_path).leave_one_out == [LeftOut(**(rows[0] | {"dependents": ["joint"]}))]


def test_weights_of_an_earlier_version_are_for_its_scores(experiment: Experiment, tmp_path: Path) -> None:
    edited(best_reranking(experiment), tmp_path, encoder_score="left out", fallback="left out")
    found = BestReranking.read(tmp_path)
    assert (found.encoder_score, found.fallback) == ("distance", "most-fluent")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"value": "high"}, "value: found 'high', expected: Input should be a valid number"),
        ({"value": "left out"}, "field 'value' is missing"),
        ({"temperature": "left out"}, "field 'temperature' is missing"),
        ({"temperature": 0}, "temperature: found 0, expected: Input should be greater than 0"),
        ({"beams": 4}, "found field 'beams', which this version does not know"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    experiment: Experiment, tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    edited(best_sampling(experiment), tmp_path, **changes)
    with pytest.raises(InputError) as refused:
        BestSampling.read(tmp_path)
    said = str(refused.value)
    assert said.startswith(f"{tmp_path / 'best.json'}: ")
    assert problem in said
    assert said.endswith(f"; remove {tmp_path} and run `enclap search` again")


def test_a_field_inside_is_named_with_its_place(experiment: Experiment, tmp_path: Path) -> None:
    edited(ensemble_metrics(experiment), tmp_path, forward_selection={"captioning": [{"added": "a"}]})
    with pytest.raises(InputError, match=r"forward_selection\.captioning\.0\.added: found 'a'.*run `enclap combine`"):
        EnsembleMetrics.read(tmp_path)


def test_what_is_missing_or_not_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"best\.json: no such file; remove .* and run `enclap search` again"):
        BestReranking.read(tmp_path)
    (tmp_path / "best.json").write_text('{"weights": ', encoding="utf-8")
    with pytest.raises(InputError, match=r"best\.json: not JSON"):
        BestReranking.read(tmp_path)
    (tmp_path / "best.json").write_bytes(b'{"rule": "\xe9"}')
    with pytest.raises(InputError, match=r"best\.json: not UTF-8 .*; remove .* and run `enclap search` again"):
        BestReranking.read(tmp_path)


def test_a_table_that_is_cut_or_missing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "history.parquet"
    with pytest.raises(InputError, match=r"history\.parquet: no such file; remove .* and run `enclap train` again"):
        read_table(path, "train")
    frame = pd.DataFrame({"epoch": range(100), "train_loss": np.linspace(5, 1, 100)})
    frame.to_parquet(path)
    pd.testing.assert_frame_equal(read_table(path, "train"), frame)
    whole = path.read_bytes()
    for damaged in (b"", whole[:100], whole[len(whole) // 2 :], whole[:4] + bytes(300) + whole[304:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"history\.parquet: damaged .*run `enclap train` again"):
            read_table(path, "train")


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_directory_or_a_table_without_what_is_read_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"values{suffix}"
    path.mkdir()
    with pytest.raises(InputError, match=rf"{path}: found a directory, expected a file; remove {tmp_path} and run"):
        read_table(path, "combine")
    path.rmdir()
    path.write_bytes(b"")
    with pytest.raises(InputError, match=rf"{path}: damaged .*run `enclap combine` again"):
        read_table(path, "combine")
    frame = pd.DataFrame({"clip_id": ["a"], "caption": ["b"]})
    frame.to_parquet(path) if suffix == ".parquet" else frame.to_csv(path, index=False)
    pd.testing.assert_frame_equal(read_table(path, "combine", ["caption"]), frame)
    with pytest.raises(InputError, match=rf"{path}: found columns clip_id, caption, expected system as well; remove"):
        read_table(path, "combine", ["clip_id", "system"])


def test_a_directory_in_the_place_of_a_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "best.json").mkdir()
    with pytest.raises(InputError, match=r"best\.json: found a directory, expected a file; remove .* `enclap search`"):
        BestReranking.read(tmp_path)
