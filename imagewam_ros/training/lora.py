# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters by peft: inject before training, merge before export, so that a robot needs no peft."""

from typing import Any

from torch import nn

from imagewam_ros.core.errors import ConfigError

SUFFIXES = (
    *("qkv", "proj", "linear1", "linear2", "img_mlp.0", "img_mlp.2", "txt_mlp.0", "txt_mlp.2"),
    *("to_q", "to_k", "to_v", "to_out.0"),
    *("feed_forward.linear_1", "feed_forward.linear_2", "feed_forward.linear_3"),
)
"""Layers that get an adapter, backbone and action expert alike: the authors' for FLUX.2, then OmniGen2's like them."""


def inject(network: nn.Module, rank: int, alpha: float) -> None:
    """Freeze `network` and put adapters beside its attention and MLP layers, in place.

    The layers without a pretrained counterpart (actions in and out, proprio) stay trainable.
    Raises ConfigError without peft or without such layers.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise ConfigError("LoRA needs peft: pip install peft") from None
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    chosen = [name for name in names if name.endswith(SUFFIXES)]
    if not chosen:
        raise ConfigError(f"no layer of this network ends in one of {', '.join(SUFFIXES)}; train it in full")
    settings: dict[str, Any] = {"r": rank, "lora_alpha": alpha, "target_modules": chosen, "lora_dropout": 0.0}
    inject_adapter_in_model(LoraConfig(**settings), network)
    for name, weight in network.named_parameters():
        weight.requires_grad_(
            "lora_" in name or name.startswith(("proprio_encoder", "action.action_encoder", "action.head"))
        )


def merge(network: nn.Module) -> None:
    """Add the adapters to their layers and take them out, in place."""
    from peft.tuners.lora import Linear as Adapted

    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Adapted):
                child.merge(safe_merge=True)
                setattr(parent, name, child.get_base_layer())
