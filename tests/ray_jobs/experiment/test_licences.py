"""Which members may be used commercially, by the corpora that they learned from."""

from __future__ import annotations

from pathlib import Path

import pytest

from ray_jobs import export
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.licences import LicenceError, check_commercial, corpus_uses, research_only
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.run.directory import RunDirectory

SMOKE = Path(__file__).parents[3] / "experiments" / "smoke.yaml"
CLOTHO = "corpora.clotho={kind: clotho, root: /data/clotho, splits: [train, validation, test]}"
OWN = "corpora.own={kind: folder, root: /data/own, splits: [train]%s}"
BUILT_IN = "members.*.corpora=[soundscapes]"


def smoke(*overrides: str) -> Experiment:
    return load_experiment(SMOKE, list(overrides))


def test_the_built_in_corpus_may_be_used_for_anything() -> None:
    check_commercial(smoke())
    assert not research_only(smoke())


def test_a_member_learned_from_what_it_was_trained_from() -> None:
    """captioner-wide reads retriever-bge, and captioner-deep starts from it."""
    start = "members.captioner-deep.init_from=captioner-wide"
    pretrained = smoke(CLOTHO, BUILT_IN, "members.retriever-bge.corpora=[clotho]")
    assert [use.members for use in research_only(pretrained)] == [["retriever-bge", "captioner-wide"]]
    same = "members.captioner-deep.audio_embedding=retriever-bert"
    pretrained = smoke(CLOTHO, BUILT_IN, "members.captioner-wide.corpora=[clotho]", start, same)
    assert [use.members for use in research_only(pretrained)] == [["captioner-deep"]]


@pytest.mark.parametrize("kind", ["clotho", "audiocaps", "wavcaps"])
def test_corpora_for_research_are_refused_with_their_members(kind: str) -> None:
    splits = "[train]" if kind == "wavcaps" else "[train, validation, test]"
    corpus = f"corpora.third={{kind: {kind}, root: /data/x, splits: {splits}}}"
    experiment = smoke(corpus, BUILT_IN, "members.retriever-bert.corpora=[soundscapes, third]")
    readers = "retriever-bert, captioner-deep"
    with pytest.raises(LicenceError, match=rf"corpora.third \({kind}\): .*; of it: {readers}"):
        check_commercial(experiment)


def test_a_corpus_that_no_member_of_the_ensemble_learned_from_is_no_hindrance() -> None:
    check_commercial(smoke(CLOTHO, BUILT_IN))


def test_of_own_recordings_the_experiment_says_what_they_allow() -> None:
    with pytest.raises(LicenceError, match=r"corpora.own \(folder\): see the corpus's own .*state `commercial_use`"):
        check_commercial(smoke(OWN % ""))
    assert not research_only(smoke(OWN % "")), "unknown is not forbidden"
    check_commercial(smoke(OWN % ", licence: CC BY 4.0, commercial_use: true"))
    forbidden = smoke(OWN % ", licence: CC BY-NC 4.0, commercial_use: false")
    with pytest.raises(LicenceError, match=r"CC BY-NC 4\.0"):
        check_commercial(forbidden)
    assert [use.corpus for use in research_only(forbidden)] == ["own"]
    assert "CC BY-NC 4.0" in str(corpus_uses(forbidden)[-1])


def test_mixtures_have_the_terms_of_their_clips() -> None:
    mixtures = "corpora.mixed={kind: mixtures, root: /data/x, pairs: p.json, layout: %s, commercial_use: true}"
    with pytest.raises(LicenceError, match=r"corpora.mixed \(mixtures\): academic and non-commercial"):
        check_commercial(smoke(mixtures % "clotho"))
    check_commercial(smoke(mixtures % "folder"))


def test_published_weights_are_not_said_to_come_from_the_corpora() -> None:
    published = "members.fluency={kind: fluency-detector, checkpoint: echecker.ckpt}"
    (own,) = corpus_uses(smoke(published))
    assert "fluency" not in own.members


def test_stating_a_licence_makes_nothing_anew() -> None:
    stated = OWN % ", licence: CC0, commercial_use: true"
    silent, told = (RunDirectory(smoke(own)) for own in (OWN % "", stated))
    assert silent.features_inputs() == told.features_inputs()


def test_export_refuses_before_any_work(tmp_path: Path) -> None:
    experiment = load_experiment(SMOKE, [f"storage_path={tmp_path}", CLOTHO])
    with pytest.raises(
        LicenceError, match=r"corpora\.clotho \(clotho\): academic and non-commercial; of it: retriever"
    ):
        export.run(experiment, commercial=True)
