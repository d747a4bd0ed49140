"""Choose which weights of an encoder are trained: all, all but the deepest layers, low-rank adapters alone, or none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

from torch import nn

from ..settings import AudioEncoderConfig


class Adapters(Protocol):
    """The sizes of low-rank adapters (LoRA, arXiv 2106.09685)."""

    lora_rank: int
    lora_alpha: int


def add_adapters(model: nn.Module, sizes: Adapters) -> None:
    """Put trainable adapters around all linear layers of a model, and freeze its own weights.

    Raises:
        ValueError: if it has no linear layer.
    """
    from peft import LoraConfig, inject_adapter_in_model  # seconds to import, and few members have adapters

    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError(f"finetuning: 'lora' adapts linear layers, and {type(model).__name__} has none")
    lora = LoraConfig(r=sizes.lora_rank, lora_alpha=sizes.lora_alpha, target_modules=linear)
    inject_adapter_in_model(lora, model)


def merge_adapters(model: nn.Module) -> None:
    """Add what adapters have learned to the weights of their layers, and remove them: the model computes the same."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            model.set_submodule(name, module.get_base_layer())
    del model.peft_config  # by which peft would say that there are adapters already


def stack_depths(model: nn.Module, number: int) -> dict[str, int]:
    """Return by name how many layers below the output each parameter of a transformers encoder acts, from 1 on.

    Args:
        number: of the layers in the encoder's stack.

    Raises:
        ValueError: if no stack has so many.
    """
    stacks = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == number]
    if not stacks:
        raise ValueError(f"training.layer_decay: no stack of {number} layers in {type(model).__name__}")
    of_layer = {parameter: number - at for at, layer in enumerate(stacks[0]) for parameter in layer.parameters()}
    depths, other = {}, number + 1
    # Encoders register their modules in the order in which these act.
    for name, parameter in model.named_parameters():
        depths[name] = of_layer.get(parameter, other)
        other = 1 if parameter in of_layer else other
    return depths


class Finetuned(nn.Module, ABC):
    """An audio encoder, of which its config says what is trained (`finetuning`, `frozen_layers`)."""

    config: AudioEncoderConfig

    @property
    @abstractmethod
    def adapted(self) -> nn.Module:
        """Return what low-rank adapters are put into."""

    @abstractmethod
    def layer_depths(self) -> dict[str, int]:
        """Return by name how many layers below the output each parameter acts, from 1 on."""

    def apply_finetuning(self) -> None:
        """Freeze what the config does not train, or add its adapters.

        Raises:
            ValueError: if there are not more layers than are frozen.
        """
        if self.config.finetuning == "frozen":
            self.requires_grad_(False)
        elif self.config.finetuning == "lora":
            add_adapters(self.adapted, self.config)
        elif self.config.frozen_layers:
            self._freeze_layers(self.config.frozen_layers)

    def continue_training(self, config: AudioEncoderConfig) -> None:
        """Continue training under the settings of `config`: the same adapters, or others after merging these."""
        if _adapters(config) == _adapters(self.config) and config.finetuning == "lora":
            self.config = config
            return
        self.merge_adapters()
        self.requires_grad_(True)
        self.config = config
        self.apply_finetuning()

    def merge_adapters(self) -> None:
        """Merge adapters into the weights, if there are any: the encoder computes the same, and then has none."""
        if self.config.finetuning == "lora":
            merge_adapters(self.adapted)
            self.config = self.config.model_copy(update={"finetuning": "full"})

    def _freeze_layers(self, number: int) -> None:
        depths = self.layer_depths()
        deepest = max(depths.values())
        if number >= deepest:
            raise ValueError(f"audio_encoder.frozen_layers: found {number}, expected fewer than its {deepest} layers")
        for name, parameter in self.named_parameters():
            if depths[name] > deepest - number:
                parameter.requires_grad_(False)


def _adapters(config: AudioEncoderConfig) -> dict[str, Any]:
    return config.model_dump(include={"finetuning", "lora_rank", "lora_alpha"})
