"""Text encoders: BGE, BERT, RoBERTa or any other encoder of transformers, by name, directory or from scratch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from models.settings import RANDOM, TextEncoderConfig
from models.tokenization import train_tokenizer


class TextEncoder(nn.Module):
    """A transformers encoder with its tokenizer and the pooling that it was trained with."""

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, config: TextEncoderConfig) -> None:
        super().__init__()
        self.model: Any = model  # of transformers, whose classes have no common type here
        self.tokenizer = tokenizer
        self.config = config
        self.dim: int = model.config.hidden_size

    @classmethod
    def create(cls, config: TextEncoderConfig, texts: Iterable[str]) -> TextEncoder:
        """Load the named checkpoint, or build from scratch and train its tokenizer on `texts`."""
        if not config.name.startswith(RANDOM):
            return cls(AutoModel.from_pretrained(config.name), AutoTokenizer.from_pretrained(config.name), config)
        tokenizer = train_tokenizer(config.tokenizer, texts, config.vocab_size)
        sizes = {"max_position_embeddings": config.max_tokens + 2, **config.sizes, "vocab_size": len(tokenizer)}
        special = {f"{token}_token_id": getattr(tokenizer, f"{token}_token_id") for token in ("pad", "bos", "eos")}
        model_config = AutoConfig.for_model(config.name.removeprefix(RANDOM), **sizes, **special)
        return cls(AutoModel.from_config(model_config), tokenizer, config)

    @classmethod
    def empty(cls, config: TextEncoderConfig, directory: Path) -> TextEncoder:
        """The same architecture and tokenizer as saved in `directory` by `save_layout`, weights not loaded."""
        model = AutoModel.from_config(AutoConfig.from_pretrained(directory))
        return cls(model, AutoTokenizer.from_pretrained(directory), config)

    def save_layout(self, directory: Path) -> None:
        """Write the architecture's config and the tokenizer's files, so that `empty` needs no network."""
        self.model.config.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)

    def forward(self, texts: list[str]) -> Tensor:
        """Embed texts; returns [B, dim]."""
        tokens = self.tokenizer(
            texts, padding=True, truncation=True, max_length=self.config.max_tokens, return_tensors="pt"
        ).to(self.model.device)
        mask = tokens["attention_mask"]
        states = self.model(input_ids=tokens["input_ids"], attention_mask=mask).last_hidden_state
        if self.config.pooling == "cls":
            return states[:, 0]
        weights = mask.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1)
