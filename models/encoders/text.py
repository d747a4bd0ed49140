"""Text encoders: BGE, BERT, RoBERTa or any other encoder of transformers, by name, directory or from scratch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import cached_file

from ..files import CheckpointError
from ..settings import RANDOM, TextEncoderConfig
from ..tokenization import train_tokenizer

POOLING_FILE = "1_Pooling/config.json"  # of sentence-transformers, where BGE and its like say how they were trained
LEGACY_POOLING = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}  # before its version 5.5


class TextEncoder(nn.Module):
    """A transformers encoder with its tokenizer and the pooling that it was trained with.

    `frozen` trains nothing of it and keeps it without dropout; `lora` trains low-rank adapters of all its linear layers
    (arXiv 2106.09685), which are saved beside the weights that they adapt.
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

        Its own `config` says which pooling was found where none is given.

        Raises:
            CheckpointError: if the checkpoint lacks weights of the encoder.
            ValueError: if it was trained with a pooling that is not supported.
        """
        if config.name.startswith(RANDOM):
            model, tokenizer = _from_scratch(config, texts)
        else:
            model, tokenizer = _pretrained(config.name), AutoTokenizer.from_pretrained(config.name)
        pooling = config.pooling or _trained_pooling(config.name, model.config.model_type)
        return cls(model, tokenizer, config.model_copy(update={"pooling": pooling}))

    @classmethod
    def empty(cls, config: TextEncoderConfig, directory: Path) -> TextEncoder:
        """The same architecture and tokenizer as saved in `directory` by `save_layout`, weights not loaded."""
        model = AutoModel.from_config(AutoConfig.from_pretrained(directory))
        return cls(model, AutoTokenizer.from_pretrained(directory), config)

    def go_on(self, config: TextEncoderConfig) -> None:
        """Train the weights that are there under the settings of `config`; pooling stays where it leaves that open.

        Raises:
            ValueError: if there are adapters, and `config` wants none or others.
        """
        before = self.config
        self.config = config.model_copy(update={"pooling": config.pooling or before.pooling})
        if before.finetuning != "lora":
            self.model.requires_grad_(True)
            self._apply_finetuning()
        elif (found := _adapters(before)) != (wanted := _adapters(config)):
            raise ValueError(f"text_encoder: found {wanted}, expected {found}: adapters go on as they are")

    def _apply_finetuning(self) -> None:
        if self.config.finetuning == "frozen":
            self.model.requires_grad_(False)
        elif self.config.finetuning == "lora":
            _add_adapters(self.model, self.config)

    def save_layout(self, directory: Path) -> None:
        """Write the architecture's config and the tokenizer's files, so that `empty` needs no network."""
        self.model.config.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)

    def train(self, mode: bool = True) -> TextEncoder:
        """As of any module, but what is frozen stays as in evaluation."""
        super().train(mode)
        if self.config.finetuning == "frozen":
            self.model.eval()
        return self

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

    def layer_depths(self) -> dict[str, int]:
        """How many layers below the output each parameter acts, from 1 on, by its name."""
        number = self.model.config.num_hidden_layers
        stacks = [m for m in self.model.modules() if isinstance(m, nn.ModuleList) and len(m) == number]
        if not stacks:
            raise ValueError(f"training.layer_decay: no stack of {number} layers in {type(self.model).__name__}")
        of_layer = {parameter: number - at for at, layer in enumerate(stacks[0]) for parameter in layer.parameters()}
        depths, other = {}, number + 1
        # Encoders register what comes before their layers before them, and what comes behind, behind.
        for name, parameter in self.named_parameters():
            depths[name] = of_layer.get(parameter, other)
            other = 1 if parameter in of_layer else other
        return depths


def _pretrained(name: str) -> Any:
    """A transformers model by hub id or directory; transformers itself only reports weights that it has to make up."""
    model, report = AutoModel.from_pretrained(name, output_loading_info=True)
    # A masked language model was published without the pooler, whose output is not read here.
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise CheckpointError(f"{name}: no weights of {', '.join(missing[:5])} ({len(missing)} in all)")
    return model


def _adapters(config: TextEncoderConfig) -> dict[str, Any]:
    return config.model_dump(include={"finetuning", "lora_rank", "lora_alpha"})


def _add_adapters(model: nn.Module, config: TextEncoderConfig) -> None:
    """Put trainable adapters around all linear layers of a transformers model, whose own weights then rest."""
    from peft import LoraConfig, inject_adapter_in_model  # seconds to import, and few members have adapters

    lora = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules="all-linear")
    inject_adapter_in_model(lora, model)


def _from_scratch(config: TextEncoderConfig, texts: Iterable[str]) -> tuple[Any, PreTrainedTokenizerBase]:
    tokenizer = train_tokenizer(config.tokenizer, texts, config.vocab_size)
    sizes = {"max_position_embeddings": config.max_tokens + 2, **config.sizes, "vocab_size": len(tokenizer)}
    special = {f"{token}_token_id": getattr(tokenizer, f"{token}_token_id") for token in ("pad", "bos", "eos")}
    model_config = AutoConfig.for_model(config.name.removeprefix(RANDOM), **sizes, **special)
    return AutoModel.from_config(model_config), tokenizer


def _trained_pooling(name: str, model_type: str) -> str:
    """What the checkpoint says; else the first token of a BERT, trained to see whether sentences follow each other."""
    known = not name.startswith(RANDOM)
    path = cached_file(name, POOLING_FILE, _raise_exceptions_for_missing_entries=False) if known else None
    if path is None:
        return "cls" if model_type == "bert" else "mean"
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    found = content.get("pooling_mode", [short for long, short in LEGACY_POOLING.items() if content.get(long)])
    modes = found if isinstance(found, list) else [found]
    if modes not in (["cls"], ["mean"]):
        raise ValueError(f"text_encoder.pooling: {path} says {content}, expected cls or mean; give one to overrule it")
    return modes[0]
