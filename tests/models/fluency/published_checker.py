"""FENSE's error detector as it is published, with random weights: its file, its encoder's files, and its code."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

WORDS = ("a", "the", "dog", "bark", "##s", "##ing", "rain", "fall", "and", "man", "loud", "##ly", "in", "of", "s")
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
        "initializer_range": 0.2, "vocab_size": 200}  # fmt: skip
TEXTS = [
    "A dog barks, and rain falls.",
    "a dog barks and and the",
    "The man's dog is barking -- loudly!",
    "rain " * 100,  # more than 64 tokens
    "rain",
    "...",
    "wind WHILE of (a) roof, in",
]


def write_encoder(folder: Path, sizes: dict[str, Any]) -> Path:
    """Write config and tokenizer of a BERT, by default bert-base-uncased, as the hub has them, without weights."""
    characters = [mark + letter for letter in "abcdefghijklmnopqrstuvwxyz" for mark in ("", "##")]
    vocab = dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *WORDS])
    AutoConfig.for_model("bert", **sizes).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
    return folder


class Classifier(nn.Module):
    """The published classifier: https://github.com/blmoistawinde/fense (model.py, data.py, evaluator.py)."""

    def __init__(self, encoder: Path) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokenizer = AutoTokenizer.from_pretrained(encoder)
        self.encoder = AutoModel.from_config(AutoConfig.from_pretrained(encoder))
        self.dropout = nn.Dropout(self.encoder.config.hidden_dropout_prob)
        self.clf = nn.Linear(self.encoder.config.hidden_size, 6)
        self.eval()

    @torch.no_grad()
    def probabilities(self, texts: list[str]) -> Tensor:
        """Return the probability of each class [N, 6]; the last is that of an error."""
        cleaned = [re.sub(r"[^\w\s]", "", text).lower() for text in texts]
        batch = self.tokenizer(cleaned, truncation=True, padding="max_length", max_length=64, return_tensors="pt")
        assert batch["input_ids"].shape == (len(texts), 64)
        states = self.encoder(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"]).last_hidden_state
        logits: Tensor = self.clf(self.dropout(states[:, 0, :]))
        return torch.sigmoid(logits)

    def save(self, path: Path, model_type: str = "bert-base-uncased") -> Path:
        """Write the published file, with the buffer that its transformers still saved."""
        positions = torch.arange(self.encoder.config.max_position_embeddings)[None]
        weights = {**self.state_dict(), "encoder.embeddings.position_ids": positions}
        torch.save({"model_type": model_type, "num_classes": 6, "state_dict": weights}, path)
        return path
