"""Tokenizers trained on captions."""

import subprocess
import sys

import pytest

from corpora.soundscapes.grammar import describe
from corpora.soundscapes.sampling import sample_scenes
from models.tokenization import KINDS, train_tokenizer

PRINT_ALL = f"""
from models.tokenization import train_tokenizer
from tests.models.test_tokenization import captions
for kind in {KINDS}:
    print(train_tokenizer(kind, captions(), 200).backend_tokenizer.to_str())
"""


def captions() -> list[str]:
    scenes = sample_scenes({"train": 60}, seed=0)["train"]
    return [caption for scene in scenes for caption in describe(scene)]


def test_every_process_trains_the_same() -> None:
    """The library counts in hash maps whose order differs from process to process."""
    runs = [
        subprocess.run([sys.executable, "-c", PRINT_ALL], capture_output=True, text=True, check=True, timeout=120)
        for _ in range(3)
    ]
    assert runs[0].stdout.count('"vocab"') == len(KINDS)
    assert len({run.stdout for run in runs}) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_texts_survive(kind: str) -> None:
    tokenizer = train_tokenizer(kind, captions(), 300)
    assert 250 < len(tokenizer) <= 300
    for text in captions()[:20]:
        ids = tokenizer(text)["input_ids"]
        assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 2)
        assert 3 not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True).strip() == text
    assert tokenizer.tokenize("<s>") == ["<s>"]
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3]) == ["<s>", "<pad>", "</s>", "<unk>"]


@pytest.mark.parametrize("kind", KINDS)
def test_words_with_marks_in_them_stay_whole(kind: str) -> None:
    text = "a high-pitched dog's bark, then it isn't heard."
    tokenizer = train_tokenizer(kind, [text] * 3, 300)
    assert tokenizer.batch_decode([tokenizer(text)["input_ids"]], skip_special_tokens=True)[0].strip() == text


def test_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of wordpiece"):
        train_tokenizer("words", ["a"], 10)
