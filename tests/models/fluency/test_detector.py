"""Precision and recall of a fluency detector for each type of damage."""

import csv
from pathlib import Path

import numpy as np
import pytest

from models.fluency.damage import DAMAGES, damage_as
from models.fluency.detector import FluencyDetector, detection
from models.settings import FluencyDetectorConfig, TextEncoderConfig

CAPTIONS = ["a dog barks loudly", "a dog barks and rain falls", "thunder", "rain falls on a roof."]


class Doubles:
    """A detector that flags a caption with a word twice in a row, and every caption with `thunder`."""

    def fluency_error(self, texts: list[str]) -> np.ndarray:
        words = [text.rstrip(".").split() for text in texts]
        return np.array([float("thunder" in one or any(map(str.__eq__, one, one[1:]))) for one in words])


def test_each_type_of_damage_is_counted_by_itself() -> None:
    found = detection(Doubles(), CAPTIONS, threshold=0.9)
    assert (found["captions"], found["flagged"]) == (4, 0.25)
    assert set(found["damage"]) == set(DAMAGES)
    # one caption is flagged as it is, and all doubled ones are
    assert found["damage"]["repeat_word"] == {"captions": 4, "precision": 0.8, "recall": 1.0}
    assert found["damage"]["repeat_adverb"] == {"captions": 1, "precision": 1.0, "recall": 1.0}
    # `thunder` has no conjunction, so flagging it is not counted here
    assert found["damage"]["remove_conjunction"] == {"captions": 1, "precision": None, "recall": 0.0}
    nothing = detection(Doubles(), ["thunder"], threshold=0.9)["damage"]["remove_verb"]
    assert nothing == {"captions": 0, "precision": None, "recall": None}


def test_real_captions_have_places_for_every_damage(shared_data: Path) -> None:
    with (shared_data / "clotho" / "clotho_captions_evaluation.csv").open(newline="", encoding="utf-8") as file:
        captions = [row[f"caption_{n}"] for row in csv.DictReader(file) for n in range(1, 6)][:1000]
    rng = np.random.default_rng(0)
    for kind, least in {"remove_verb": 0.6, "remove_conjunction": 0.4, "truncate": 0.7, "repeat_adverb": 0.04}.items():
        damaged = [damage_as(kind, caption, rng) for caption in captions]
        assert np.mean([text is not None for text in damaged]) > least, kind
        assert all(text != caption for text, caption in zip(damaged, captions, strict=True))
    config = TextEncoderConfig(
        name="random:bert",
        vocab_size=400,
        sizes={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16},
    )
    detector = FluencyDetector.create(FluencyDetectorConfig(text_encoder=config), captions).eval()
    errors = detector.fluency_error(captions)
    middle = float(np.median(errors))
    assert detection(detector, captions, middle)["flagged"] == pytest.approx((errors > middle).mean())
