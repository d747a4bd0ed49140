"""The self-test of a bundle: a clip that is stored in it, with what every member said of it when it was exported.

It finds what checksums cannot: a machine, or versions of libraries, on which the same files compute something else.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
from pydantic import BaseModel, ConfigDict

from ..captioner.model import conditioning
from ..files import write_bytes, write_json
from ..generation.candidates import encoded_batches
from ..generation.likelihood import log_likelihoods
from ..records import parse_record
from .bundle import Ensemble

CLIP = "self_test/clip.wav"
EXPECTED = "self_test/expected.json"
FORMAT = 1
TOLERANCE = 0.01  # of a score, and again that share of it: other processors and GPUs round otherwise
DECIMALS = 5


class SelfTestError(RuntimeError):
    """Members give a bundle's own clip other scores than when it was exported; the message names them."""


class Expected(BaseModel):
    """self_test/expected.json: the ensemble's caption of the clip, and the scores of texts by every member.

    Attributes:
        scores: by member, of each text: a retriever's similarity to the clip, a captioner's mean log-likelihood of a
            token given the clip, the fluency detector's probability that the text is damaged.
    """

    model_config = ConfigDict(extra="forbid")
    format: int = FORMAT
    caption: str | None  # None where nobody captions
    texts: list[str]
    scores: dict[str, list[float]]


def write_self_test(bundle: Path, samples: npt.NDArray[np.float32], rate: int, texts: Sequence[str]) -> None:
    """Store a clip in a bundle with what its members say of it, computed on the CPU.

    Args:
        samples: [time], floats of full scale 1.
        rate: sampling rate in Hz.
        texts: distinct ones, which are scored beside the ensemble's own caption.
    """
    (bundle / CLIP).parent.mkdir(exist_ok=True)
    wav = io.BytesIO()  # the library itself would say of a full disk that there was an error
    soundfile.write(wav, samples, rate, format="WAV", subtype="PCM_16")  # floats would bring a chunk with the time
    write_bytes(bundle / CLIP, wav.getvalue())
    ensemble = Ensemble.load(bundle, device="cpu", ask_captioners=False)
    caption = _caption(ensemble)
    texts = list(dict.fromkeys([*([caption] if caption else []), *texts]))
    expected = Expected(caption=caption, texts=texts, scores=member_scores(ensemble, texts))
    write_json(bundle / EXPECTED, expected.model_dump())


def run_self_test(bundle: Path) -> str:
    """Let a bundle's members judge its clip again, on the GPU if there is one, and compare.

    Captions are not compared strictly: a score that is rounded otherwise can let another token be drawn.

    Returns:
        What to say of it.

    Raises:
        SelfTestError: if scores differ by more than `TOLERANCE`.
        CheckpointError: if a member cannot be loaded, or expected.json cannot be read.
    """
    path = bundle / EXPECTED
    if not path.is_file():
        return "has no self-test: it was exported by an earlier version"
    expected = parse_record(Expected, path.read_bytes(), path, "copy or export the bundle again", FORMAT)
    ensemble = Ensemble.load(bundle, ask_captioners=False)
    found = member_scores(ensemble, expected.texts)
    if differing := _differences(expected, found):
        listed = "\n  ".join(differing)
        raise SelfTestError(
            f"{bundle}: on this machine ({ensemble.device}) members give the bundle's own clip other scores than when "
            f"it was exported; compare the versions of libraries with `provenance.packages` of bundle.json\n  {listed}"
        )
    most = max(float(np.abs(np.subtract(found[name], wanted)).max()) for name, wanted in expected.scores.items())
    caption = _caption(ensemble)
    same = "the same caption" if caption == expected.caption else f"the caption {caption!r}, not {expected.caption!r}"
    said = f" and {same}" if expected.caption is not None else ""
    return f"gives its own clip the scores that it had when it was exported (largest difference {most:.1g}){said}"


def _differences(expected: Expected, found: dict[str, list[float]]) -> list[str]:
    """Describe for each member with a score beyond `TOLERANCE` the one that is farthest away."""
    differing = []
    for name, wanted in expected.scores.items():
        away = np.abs(np.subtract(found[name], wanted)) / (1 + np.abs(wanted))
        text = int(away.argmax())
        if not away[text] <= TOLERANCE:  # nor where it is NaN, which argmax finds
            text_said = expected.texts[text]
            differing.append(f"{name}: {found[name][text]:.4f} for {text_said!r}, expected {wanted[text]:.4f}")
    return differing


def member_scores(ensemble: Ensemble, texts: list[str]) -> dict[str, list[float]]:
    """Return how every member scores distinct texts for the clip of a bundle; see `Expected`."""
    (clip,) = ensemble.read([ensemble.directory / CLIP])
    heard = {
        name: retriever.audio_embeddings([clip.heard_at(retriever.waveform_rate)])
        for name, retriever in ensemble.retrievers.items()
    }
    scores: dict[str, Any] = {
        name: retriever.similarity(retriever.text_embeddings(texts), heard[name])[:, 0]
        for name, retriever in ensemble.retrievers.items()
    }
    for name, captioner in ensemble.captioners.items():
        read = conditioning(heard, ensemble.manifest.captioners[name], 1)
        ((_, states, mask),) = encoded_batches(captioner, [clip.codes], read, 1)
        (of_clip,) = log_likelihoods(captioner, states, mask, [texts])
        scores[name] = [of_clip[text] for text in texts]
    if ensemble.manifest.fluency_detector and ensemble.detector:
        scores[ensemble.manifest.fluency_detector] = ensemble.detector.fluency_error(texts)
    return {name: [round(float(score), DECIMALS) for score in of_texts] for name, of_texts in scores.items()}


def _caption(ensemble: Ensemble) -> str | None:
    if not ensemble.manifest.captioners:
        return None
    (caption,) = ensemble.caption([ensemble.directory / CLIP])
    return caption.text
