# SPDX-License-Identifier: Apache-2.0
"""Merge low-rank adapters of the authors' checkpoints into the weights they wrap.

A wrapped linear layer is stored as base.weight, lora_A (rank, inputs) and lora_B (outputs,
rank); merged it is base + alpha / rank * B A. Source: docs/model.md.
"""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from torch import Tensor

from imagewam_ros.core.errors import CheckpointError
from imagewam_ros.model.safetensors_stream import Lazy

PART = re.compile(r"^(?P<layer>.+)\.(?P<part>base\.weight|base\.bias|lora_A(?:\.weight)?|lora_B(?:\.weight)?)$")


def has_lora(state: Mapping[str, Tensor]) -> bool:
    """Tell whether any layer is wrapped."""
    return any(".lora_A" in name for name in state)


def merged(state: Mapping[str, Tensor], alpha: float | None, path: Path) -> dict[str, Tensor | Lazy]:
    """Return plain weights; what is merged is made when it is asked for. Raises CheckpointError.

    alpha must be given where adapters are found: the file does not say it, and guessing it equal to the rank
    would silently scale what was learnt.
    """
    if not has_lora(state):
        return dict(state)
    if alpha is None:
        raise CheckpointError(
            f"{path} holds LoRA adapters but not their alpha; say it (--lora-alpha, see its training config)"
        )
    plain: dict[str, Tensor | Lazy] = {}
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        found = PART.match(name)
        if found:
            layers.setdefault(found["layer"], {})[found["part"].removesuffix(".weight")] = tensor
        else:
            plain[name] = tensor
    for layer, parts in layers.items():
        missing = [part for part in ("base", "lora_A", "lora_B") if part not in parts]
        if missing:
            raise CheckpointError(f"{path}: adapter of {layer} lacks {', '.join(missing)}; save the whole model again")
        base = parts["base"]
        make = partial(merge, base, parts["lora_A"], parts["lora_B"], alpha)
        plain[f"{layer}.weight"] = Lazy(tuple(base.shape), base.dtype, make)
        if "base.bias" in parts:
            plain[f"{layer}.bias"] = parts["base.bias"]
    return plain


def merge(base: Tensor, down: Tensor, up: Tensor, alpha: float) -> Tensor:
    """base + alpha / rank * up down, computed in float32 and kept in the base's type."""
    return (base.float() + alpha / down.shape[0] * (up.float() @ down.float())).to(base.dtype)
