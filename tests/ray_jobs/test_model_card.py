"""The model card of a bundle: front matter that the hub's own library reads, true numbers, nobody's paths."""

from pathlib import Path

import pytest
from huggingface_hub import ModelCard, ModelCardData

from corpora.soundscapes.corpus import SoundscapesCorpus
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.experiment.member_config import RetrieverMember
from ray_jobs.reporting.model_card import model_card

from .conftest import ROOT
from .example_results import ensemble_metrics

SMOKE = ROOT / "experiments" / "smoke.yaml"


def test_front_matter_has_the_results_of_the_ensemble() -> None:
    experiment = load_experiment(SMOKE)
    metrics = ensemble_metrics(experiment)
    data = ModelCard(model_card(experiment, metrics)).data
    assert isinstance(data, ModelCardData)
    assert (data.library_name, data.license, data.license_name) == ("enclap", "other", "see-notice")
    assert data.license_link is None, "the hub takes LICENSE, LICENSE.md and URLs"
    assert data.eval_results is not None
    values = {one.metric_type: one.metric_value for one in data.eval_results}
    assert values == {
        "cider_d": pytest.approx(metrics.captioning["ensemble"]["cider_d"], abs=1e-4),
        "map@10": pytest.approx(metrics.retrieval["ensemble"]["map@10"], abs=1e-4),
    }
    assert {(one.dataset_name, one.dataset_split) for one in data.eval_results} == {("soundscapes", "test")}


def test_the_text_compares_with_the_best_single_system_and_names_every_member() -> None:
    experiment = load_experiment(SMOKE)
    metrics = ensemble_metrics(experiment)
    text = ModelCard(model_card(experiment, metrics)).text
    singles = {name: float(value["cider_d"]) for name, value in metrics.captioning.items() if name != "ensemble"}
    best = max(singles, key=lambda name: singles[name])
    (row,) = (line for line in text.splitlines() if "| CIDEr-D |" in line)
    assert f"| {best} {singles[best]:.3f} |" in row
    (found,) = (one for one in metrics.comparisons if (one.metric, one.b) == ("cider_d", best))
    assert f"{found.delta:+.3f} [{found.ci95[0]:.3f}, {found.ci95[1]:.3f}]" in row
    for name in experiment.members:
        assert f"\n| {name} |" in text
    assert "built-in synthetic corpus" in text
    assert f"- soundscapes (soundscapes): {SoundscapesCorpus.terms.licence}" in text
    assert "](NOTICE)" in text
    assert "{" not in text


def test_a_card_without_values_and_with_models_of_this_machine(tmp_path: Path) -> None:
    model = tmp_path / "private" / "my-bert"
    model.mkdir(parents=True)
    experiment = load_experiment(SMOKE)
    retriever = experiment.members["retriever-bge"]
    assert isinstance(retriever, RetrieverMember)
    encoder = retriever.text_encoder.model_copy(update={"name": str(model)})
    changed = retriever.model_copy(update={"text_encoder": encoder})
    members = {**experiment.members, "retriever-bge": changed}
    card = ModelCard(model_card(experiment.model_copy(update={"members": members})))
    assert isinstance(card.data, ModelCardData)
    assert card.data.eval_results is None
    assert "## Results" not in card.text
    assert "my-bert" in card.text
    assert str(tmp_path) not in card.content
