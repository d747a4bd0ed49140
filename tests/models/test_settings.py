"""The defaults are those of the sources that they name."""

from models.settings import SamplingConfig


def test_sampling_is_that_of_the_source_by_default() -> None:
    source = {
        "candidates": 50,
        "temperature": 0.5,
        "top_p": 0.95,
        "top_k": 50,
        "min_tokens": 5,
        "max_tokens": 30,
        "no_repeat_ngram": 3,
    }
    assert SamplingConfig().model_dump(include=set(source)) == source
    for name in source:
        assert "arXiv 2309.17352" in str(SamplingConfig.model_fields[name].description), name
    off = {"min_p": 0.0, "typical_p": 1.0, "epsilon_cutoff": 0.0, "repetition_penalty": 1.0, "static_cache": False}
    assert SamplingConfig().model_dump(exclude=set(source)) == off
