"""Captioners agree on the caption that all of them together find likeliest."""

import numpy as np
import pytest
import torch

from models.captioner.model import Captioner
from models.generation.agreed_captions import agreed_captions
from models.generation.candidates import beam_search
from models.generation.proposals import ClipInputs
from models.settings import BeamConfig

from ..captioner.test_distillation import other

BEAM = BeamConfig(beams=2, max_tokens=12)


@pytest.fixture(scope="module")
def captioners(captioner: Captioner) -> dict[str, Captioner]:
    return {f"captioner-{seed}": other(captioner, seed) for seed in range(3)}


def encoded(captioner: Captioner, codes: np.ndarray, audio: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        return captioner.encode(*captioner.pad_codes([codes]), torch.from_numpy(audio[None]))


def test_of_all_beams_the_likeliest_for_all_is_kept(
    captioners: dict[str, Captioner], clips: tuple[list[np.ndarray], np.ndarray]
) -> None:
    codes, audio = clips
    heard = {name: (1 + number) * audio for number, name in enumerate(captioners)}
    found = agreed_captions(captioners, ClipInputs(codes, heard), BEAM)
    assert len(found) == len(codes)
    for clip, agreed in enumerate(found):
        states = {name: encoded(one, codes[clip], heard[name][clip]) for name, one in captioners.items()}
        proposed = {name: beam_search(one, *states[name], BEAM)[0].text for name, one in captioners.items()}
        mean = {
            text: np.mean([float(one.log_likelihood(*states[name], [text])) for name, one in captioners.items()])
            for text in proposed.values()
        }
        assert mean[agreed.text] == pytest.approx(max(mean.values()), abs=1e-4)
        assert agreed.log_likelihood == pytest.approx(mean[agreed.text], abs=1e-4)
        assert proposed[agreed.captioner] == agreed.text
    assert len({agreed.captioner for agreed in found}) > 1, "no captioner is always right"


def test_a_captioner_agrees_with_itself(
    captioners: dict[str, Captioner], clips: tuple[list[np.ndarray], np.ndarray]
) -> None:
    (name, captioner), *_ = captioners.items()
    found = agreed_captions({name: captioner}, ClipInputs(clips[0], {name: clips[1]}), BEAM)
    for clip, agreed in enumerate(found):
        assert agreed.text == beam_search(captioner, *encoded(captioner, clips[0][clip], clips[1][clip]), BEAM)[0].text
