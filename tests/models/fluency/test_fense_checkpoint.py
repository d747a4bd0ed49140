"""FENSE's published error detector gives its own probabilities here, before and after it is saved as a member."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from models.files import CheckpointError
from models.fluency.detector import FluencyDetector
from models.settings import FluencyDetectorConfig, TextEncoderConfig

from .published_checker import TEXTS, TINY, Classifier, write_encoder


def config(folder: Path, **text_encoder: Any) -> FluencyDetectorConfig:
    encoder = TextEncoderConfig(name=str(folder / "bert"), **text_encoder)
    return FluencyDetectorConfig(text_encoder=encoder, checkpoint=str(folder / "echecker.ckpt"))


@pytest.fixture
def published(tmp_path: Path) -> Classifier:
    """The classifier whose files are in the test's folder: echecker.ckpt, and its encoder's in bert/."""
    classifier = Classifier(write_encoder(tmp_path / "bert", TINY))
    classifier.save(tmp_path / "echecker.ckpt")
    return classifier


def test_the_probabilities_are_those_of_the_published_code(tmp_path: Path, published: Classifier) -> None:
    detector = FluencyDetector.create(config(tmp_path), []).eval()
    expected = published.probabilities(TEXTS)
    found = detector.fluency_error(TEXTS)
    np.testing.assert_allclose(found, expected[:, -1], atol=1e-5, rtol=0)
    assert np.ptp(found) > 0.05, "the texts are told apart"
    assert (expected[:, :-1] - expected[:, -1:]).abs().min() > 1e-3, "another output would be noticed"
    # whatever stands beside it in the batch
    np.testing.assert_allclose(detector.fluency_error(TEXTS[:1]), expected[:1, -1], atol=1e-5, rtol=0)


def test_aac_metrics_finds_the_same_errors(tmp_path: Path, published: Classifier) -> None:
    """The metric and the filter are one detector."""
    from aac_metrics.functional.fer import BERTFlatClassifier, fer
    from transformers import AutoModel

    AutoModel.from_config(published.encoder.config).save_pretrained(tmp_path / "bert")
    checker = BERTFlatClassifier(str(tmp_path / "bert"), 6)
    checker.load_state_dict(published.state_dict())
    _, clips = fer(TEXTS, echecker=checker, return_probs=True, device="cpu")
    found = FluencyDetector.create(config(tmp_path), []).eval().fluency_error(TEXTS)
    np.testing.assert_allclose(found, clips["fluency_error.error_prob"], atol=1e-5, rtol=0)


def test_it_has_the_published_size(tmp_path: Path) -> None:
    """bert-base-uncased: 109 million parameters, 30,522 tokens."""
    classifier = Classifier(write_encoder(tmp_path / "bert", {}))
    classifier.save(tmp_path / "echecker.ckpt")
    detector = FluencyDetector.create(config(tmp_path), []).eval()
    assert sum(parameter.numel() for parameter in detector.parameters()) == 109_482_240 + 6 * 769
    expected = classifier.probabilities(TEXTS[:3])[:, -1]
    np.testing.assert_allclose(detector.fluency_error(TEXTS[:3]), expected, atol=1e-5, rtol=0)
    assert np.ptp(expected) > 1e-3
    layout = FluencyDetector.layout(FluencyDetectorConfig(checkpoint="echecker.ckpt"))
    assert {n: p.shape for n, p in layout.named_parameters()} == {n: p.shape for n, p in detector.named_parameters()}


def test_a_saved_member_needs_no_other_file(tmp_path: Path, published: Classifier) -> None:
    detector = FluencyDetector.create(config(tmp_path), []).eval()
    found = detector.fluency_error(TEXTS)
    detector.save(tmp_path / "member")
    shutil.rmtree(tmp_path / "bert")
    (tmp_path / "echecker.ckpt").unlink()
    loaded = FluencyDetector.load(tmp_path / "member")
    np.testing.assert_array_equal(loaded.fluency_error(TEXTS), found)
    assert loaded.config == detector.config


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"no such file; expected FENSE's error detector, such as echecker_clotho_audiocaps_base\.ckpt"),
        ([1, 2], r"found list, without model_type, num_classes, state_dict; expected FENSE's"),
        ({"model": {}, "epoch": 3}, r"found a dictionary of 'model', 'epoch', without model_type, num_classes"),
        ({"model_type": "x", "num_classes": 5, "state_dict": {}}, "num_classes is 5, expected 6: add_tail, .*, error"),
        ({"model_type": "x", "num_classes": 6, "state_dict": [1]}, "state_dict is list, expected tensors by name"),
    ],
)
def test_another_file_is_refused_with_what_was_found(
    tmp_path: Path, published: Classifier, content: Any, message: str
) -> None:
    path = tmp_path / "echecker.ckpt"
    path.unlink()
    if content is not None:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=rf"echecker\.ckpt: {message}"):
        FluencyDetector.create(config(tmp_path), [])


def test_another_encoder_is_refused_with_the_one_it_was_trained_from(tmp_path: Path, published: Classifier) -> None:
    published.save(tmp_path / "echecker.ckpt", model_type="prajjwal1/bert-tiny")
    shutil.rmtree(tmp_path / "bert")
    with pytest.raises(CheckpointError, match=r"bert: cannot be read \(.*\); expected a hub id, or a directory with"):
        FluencyDetector.create(config(tmp_path), [])
    write_encoder(tmp_path / "bert", TINY | {"num_hidden_layers": 3, "intermediate_size": 96})
    with pytest.raises(CheckpointError) as refused:
        FluencyDetector.create(config(tmp_path), [])
    said = str(refused.value)
    assert "echecker.ckpt: missing encoder.encoder.layer.2." in said
    assert f"trained from 'prajjwal1/bert-tiny', and text_encoder is '{tmp_path / 'bert'}'" in said


@pytest.mark.parametrize(
    ("text_encoder", "message"),
    [
        (
            {"name": "random:bert"},
            "text_encoder: found 'random:bert', expected the encoder that checkpoint was trained",
        ),
        ({"pooling": "mean"}, "text_encoder.pooling: found 'mean', expected 'cls' as checkpoint has it"),
        ({"finetuning": "lora"}, "text_encoder.finetuning: found 'lora', expected 'full'"),
        ({"max_tokens": 32}, "text_encoder.max_tokens: found 32, expected 64"),
    ],
)
def test_settings_that_the_published_detector_does_not_have_are_refused(
    text_encoder: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        FluencyDetectorConfig.model_validate({"checkpoint": "a.ckpt", "text_encoder": text_encoder})
    FluencyDetectorConfig.model_validate({"checkpoint": "a.ckpt", "text_encoder": {"pooling": "cls"}})
