"""Text encoders: BGE, BERT, RoBERTa or any other encoder of transformers, by name, directory or from scratch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from ..checkpoint import naming, plain_data
from ..device import batches_by_length
from ..files import CheckpointError
from ..published import local_architecture
from ..records import parse_object
from ..settings import RANDOM, TextEncoderConfig
from ..tokenization import refuse_misfit, train_tokenizer, untrained_tokenizer
from .finetuning import add_adapters, stack_depths

POOLING_FILE = "1_Pooling/config.json"  # of sentence-transformers, where BGE and its like say how they were trained
LEGACY_POOLING = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}  # before its version 5.5


CHARACTERS = 2**15  # of a batch of texts, padding included: about 500 captions


def text_batches(texts: Sequence[str]) -> Iterator[list[int]]:
    """Yield batches of positions of texts that are about equally long."""
    return batches_by_length([len(text) for text in texts], CHARACTERS)


class TextEncoder(nn.Module):
    """A transformers encoder with its tokenizer and the pooling that it was trained with.

    With finetuning `frozen` nothing of it is trained and it has no dropout; with `lora`, low-rank adapters of all its
    linear layers are trained (arXiv 2106.09685) and saved beside the weights that they adapt.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, config: TextEncoderConfig) -> None:
        super().__init__()
        self.model: Any = model  # of transformers, whose classes have no common type here
        self.tokenizer = tokenizer
        self.config = config
        self.dim: int = model.config.hidden_size
        self._apply_finetuning()

    @classmethod
    def create(cls, config: TextEncoderConfig, texts: Iterable[str]) -> TextEncoder:
        """Load the named checkpoint, or build from scratch and train its tokenizer on `texts`.

        Where `config` gives no pooling, the encoder's own `config` holds the one that was found.

        Raises:
            CheckpointError: if the checkpoint lacks weights of the encoder.
            ValueError: if it was trained with a pooling that is not supported.
        """
        if config.name.startswith(RANDOM):
            tokenizer = train_tokenizer(config.tokenizer, texts, config.vocab_size)
            model = AutoModel.from_config(_random_architecture(config, tokenizer, len(tokenizer)))
        else:
            model, tokenizer = _pretrained(config.name), AutoTokenizer.from_pretrained(config.name)
        pooling = config.pooling or _trained_pooling(config.name, model.config.model_type)
        return cls(model, tokenizer, config.model_copy(update={"pooling": pooling}))

    @classmethod
    def layout(cls, config: TextEncoderConfig) -> TextEncoder:
        """Lay out what `create` builds on the meta device, without weights, texts and network.

        The embedding of a tokenizer that is still to be trained has all rows of `vocab_size`.

        Raises:
            OSError: if the sizes are those of a checkpoint that is not on this disk.
        """
        tokenizer = untrained_tokenizer()
        if config.name.startswith(RANDOM):
            architecture = _random_architecture(config, tokenizer, config.vocab_size)
        else:
            architecture = local_architecture(config.name)
        with torch.device("meta"):
            return cls(AutoModel.from_config(architecture), tokenizer, config)

    @classmethod
    def empty(cls, config: TextEncoderConfig, directory: Path) -> TextEncoder:
        """Build the architecture and tokenizer that `save_layout` wrote into `directory`, with random weights.

        Raises:
            CheckpointError: if files are missing or damaged, or do not fit each other.
        """
        with naming(directory):
            architecture, tokenizer = AutoConfig.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
            refuse_misfit(tokenizer, ["pad_token"], architecture.vocab_size)
            return cls(AutoModel.from_config(architecture), tokenizer, config)

    @classmethod
    def unfilled(cls, config: TextEncoderConfig) -> TextEncoder:
        """Build the named encoder with random weights, to be filled from another file.

        Raises:
            CheckpointError: if its config or tokenizer cannot be read.
        """
        with naming(config.name, "expected a hub id, or a directory with config.json and a tokenizer"):
            architecture = AutoConfig.from_pretrained(config.name)
            tokenizer = AutoTokenizer.from_pretrained(config.name)
        return cls(AutoModel.from_config(architecture), tokenizer, config)

    def continue_training(self, config: TextEncoderConfig) -> None:
        """Continue training under the settings of `config`; pooling stays as it is where `config` gives none.

        Raises:
            ValueError: if there are adapters, and `config` has none or others.
        """
        before = self.config
        self.config = config.model_copy(update={"pooling": config.pooling or before.pooling})
        if before.finetuning != "lora":
            self.model.requires_grad_(True)
            self._apply_finetuning()
        elif (found := _adapters(before)) != (wanted := _adapters(config)):
            raise ValueError(f"text_encoder: found {wanted}, expected {found}: adapters are trained on as they are")

    def _apply_finetuning(self) -> None:
        if self.config.finetuning == "frozen":
            self.model.requires_grad_(False)
        elif self.config.finetuning == "lora":
            add_adapters(self.model, self.config)

    def save_layout(self, directory: Path) -> None:
        """Write the architecture's config and the tokenizer's files, so that `empty` needs no network."""
        self.model.config.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)

    def train(self, mode: bool = True) -> TextEncoder:
        """Switch to training or evaluation mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.config.finetuning == "frozen":
            self.model.eval()
        return self

    def forward(self, texts: list[str]) -> Tensor:
        """Embed B texts as [B, dim]."""
        tokens = self.tokenizer(
            texts, padding=True, truncation=True, max_length=self.config.max_tokens, return_tensors="pt"
        ).to(self.model.device)
        mask = tokens["attention_mask"]
        states = self.model(input_ids=tokens["input_ids"], attention_mask=mask).last_hidden_state
        if self.config.pooling == "cls":
            first: Tensor = states[:, 0]
            return first
        weights = mask.unsqueeze(-1).to(states.dtype)
        mean: Tensor = (states * weights).sum(1) / weights.sum(1)
        return mean

    def reads_whole(self, text: str) -> bool:
        """Return whether a text has no more tokens than are read of it."""
        most = self.config.max_tokens
        # A token has a byte at least, so that most texts need not be split to tell.
        if len(text.encode(errors="surrogatepass")) + self.tokenizer.num_special_tokens_to_add() <= most:
            return True
        return len(self.tokenizer(text, verbose=False)["input_ids"]) <= most

    def layer_depths(self) -> dict[str, int]:
        """Return by name how many layers below the output each parameter acts, from 1 on."""
        return stack_depths(self, self.model.config.num_hidden_layers)


def _pretrained(name: str) -> Any:
    """Load a model of transformers by hub id or directory, and refuse one with weights that are missing.

    transformers itself only warns, and draws them at random.
    """
    with plain_data(name):
        model, report = AutoModel.from_pretrained(name, output_loading_info=True)
    # A masked language model was published without the pooler, whose output is not read here.
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise CheckpointError(f"{name}: no weights of {', '.join(missing[:5])} ({len(missing)} in all)")
    return model


def _adapters(config: TextEncoderConfig) -> dict[str, Any]:
    return config.model_dump(include={"finetuning", "lora_rank", "lora_alpha"})


def _random_architecture(config: TextEncoderConfig, tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> Any:
    """Return the transformers config of an encoder from scratch."""
    sizes = {"max_position_embeddings": config.max_tokens + 2, **config.sizes, "vocab_size": vocab_size}
    special = {f"{token}_token_id": getattr(tokenizer, f"{token}_token_id") for token in ("pad", "bos", "eos")}
    return AutoConfig.for_model(config.name.removeprefix(RANDOM), **sizes, **special)


def _trained_pooling(name: str, model_type: str) -> str:
    """Return the pooling that a checkpoint was trained with, as it says itself or as its family suggests.

    BERT's first token was trained to tell whether two sentences follow each other; of others the mean is taken.
    """
    path = None if name.startswith(RANDOM) else _pooling_file(name)
    if path is None:
        return "cls" if model_type == "bert" else "mean"
    content = parse_object(path.read_bytes(), path, "download the checkpoint again")
    found = content.get("pooling_mode", [short for long, short in LEGACY_POOLING.items() if content.get(long)])
    modes = found if isinstance(found, list) else [found]
    if modes not in (["cls"], ["mean"]):
        raise ValueError(f"text_encoder.pooling: {path} says {content}, expected cls or mean; give one to overrule it")
    return str(modes[0])


def _pooling_file(name: str) -> Path | None:
    """Find the file of a checkpoint that names its pooling, by hub id or directory; None if it has none."""
    if os.path.isdir(name):
        path = Path(name) / POOLING_FILE
        return path if path.is_file() else None
    try:
        return Path(hf_hub_download(name, POOLING_FILE))
    except EntryNotFoundError:  # neither in the hub's repository nor, without a network, in its cache
        return None
