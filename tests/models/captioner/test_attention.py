"""Each call of a captioner's attention goes to the function that suits it."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.captioner import attention as routed
from models.captioner.attention import REGISTERED, use_captioner_attention
from models.captioner.model import Captioner
from models.captioner.shared_cross_attention import shared_states_cache

Clips = tuple[list[np.ndarray], np.ndarray]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of our own functions, in the order of their calls."""
    found: list[str] = []

    def recorded(name: str) -> Callable[..., Tensor]:
        original: Callable[..., Tensor] = getattr(routed, name)

        def record(*args: Any) -> Tensor:
            found.append(name)
            return original(*args)

        return record

    for name in ("blocked_attention", "grouped_attention"):
        monkeypatch.setattr(routed, name, recorded(name))
    return found


@pytest.mark.parametrize("name", REGISTERED)
def test_the_encoder_is_blocked_in_training_and_the_decoder_never(
    captioner: Captioner, clips: Clips, calls: list[str], name: str
) -> None:
    model = deepcopy(captioner)
    use_captioner_attention(model.bart, name)
    for module in model.modules():
        if hasattr(module, "dropout") and isinstance(module.dropout, float):
            setattr(module, "dropout", 0.1)  # noqa: B010 a module takes attributes of any type, its stub tensors only
    batch = (*model.pad_codes(clips[0]), torch.from_numpy(clips[1]), [["a dog barks twice nearby"]] * 5)
    model(*batch)
    assert not calls, "nothing is dropped in evaluation"
    model.train()(*batch)
    assert calls == ["blocked_attention"] * len(model.bart.model.encoder.layers)


@torch.inference_mode()
@pytest.mark.parametrize(("each", "expected"), [(1, []), (3, ["grouped_attention"])])
def test_several_rows_a_clip_are_grouped(
    captioner: Captioner, clips: Clips, calls: list[str], each: int, expected: list[str]
) -> None:
    states, mask = captioner.encode(*captioner.pad_codes(clips[0]), torch.from_numpy(clips[1]))
    cache = shared_states_cache(captioner.bart, states)
    rows = mask.repeat_interleave(each, 0)
    captioner.bart(
        decoder_input_ids=torch.zeros(len(rows), 1, dtype=torch.long),
        encoder_outputs=(rows[:, :, None].float(),),
        attention_mask=rows,
        past_key_values=cache,
    )
    assert calls == expected * len(captioner.bart.model.decoder.layers)


def test_padding_is_masked_as_by_transformers_own(captioner: Captioner, clips: Clips) -> None:
    """The names are known to the registry of masks, too: an unknown one gets no mask, and no error."""
    model = deepcopy(captioner).eval()
    arguments = (*model.pad_codes(clips[0]), torch.from_numpy(clips[1]))
    for name in REGISTERED:
        use_captioner_attention(model.bart, name)
        ours = model.encode(*arguments)[0]
        model.bart.set_attn_implementation(name)
        theirs = model.encode(*arguments)[0]
        torch.testing.assert_close(ours, theirs)


def test_a_saved_config_does_not_name_it(captioner: Captioner) -> None:
    """Else other programs could not load what `save` wrote."""
    assert "captioner-" not in captioner.bart.config.to_json_string()
