"""Keys and values shared by a clip's rows give what a copy for each row gives."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM
from transformers.modeling_outputs import BaseModelOutput

from models.captioner.attention import use_captioner_attention
from models.captioner.model import Captioner
from models.captioner.shared_cross_attention import shared_states_cache
from models.generation.candidates import encoded_batches

Clips = tuple[list[np.ndarray], np.ndarray]
LENGTH = {"max_length": 12, "do_sample": False, "output_scores": True, "return_dict_in_generate": True}


@torch.inference_mode()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("each", "beams"), [(3, 1), (1, 4)])
def test_same_scores_as_with_a_copy_for_each_row(
    captioner: Captioner, clips: Clips, attention: str, each: int, beams: int
) -> None:
    _, states, mask = next(encoded_batches(captioner, *clips, 16))
    config = deepcopy(captioner.bart.config)
    bart = AutoModelForSeq2SeqLM.from_config(config, attn_implementation=attention).eval()
    bart.model.decoder.load_state_dict(captioner.bart.model.decoder.state_dict())
    bart.model.encoder = None  # generate() may not need it
    copies = states.repeat_interleave(each, 0)
    options = LENGTH | {"attention_mask": mask.repeat_interleave(each, 0), "num_beams": beams}
    expected = bart.generate(encoder_outputs=BaseModelOutput(last_hidden_state=copies), **options)
    use_captioner_attention(bart, attention)
    cache = shared_states_cache(bart, states)
    shape = BaseModelOutput(last_hidden_state=copies[:, :, :1])
    found = bart.generate(encoder_outputs=shape, past_key_values=cache, **options)
    assert cache.cross_attention_cache.layers[0].keys.shape[0] == len(states), "a row a clip, to the end"
    assert torch.equal(found.sequences, expected.sequences)
    for one, other in zip(found.scores, expected.scores, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
