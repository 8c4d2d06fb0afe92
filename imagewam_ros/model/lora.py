# SPDX-License-Identifier: Apache-2.0
"""Merge low-rank adapters of the authors' checkpoints into the weights they wrap.

A wrapped linear layer is stored as base.weight, lora_A (rank, inputs) and lora_B (outputs,
rank); merged it is base + alpha / rank * B A. Source: docs/model.md.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from imagewam_ros.core.errors import CheckpointError

PART = re.compile(r"^(?P<layer>.+)\.(?P<part>base\.weight|base\.bias|lora_A(?:\.weight)?|lora_B(?:\.weight)?)$")


def has_lora(state: Mapping[str, Tensor]) -> bool:
    """Tell whether any layer is wrapped."""
    return any(".lora_A" in name for name in state)


def merged(state: Mapping[str, Tensor], alpha: float | None, path: Path) -> dict[str, Tensor]:
    """Return plain weights, computed in float32 and kept in the base's type. Raises CheckpointError.

    alpha must be given where adapters are found: the file does not say it, and guessing it equal to the rank
    would silently scale what was learnt.
    """
    if not has_lora(state):
        return dict(state)
    if alpha is None:
        raise CheckpointError(
            f"{path} holds LoRA adapters but not their alpha; say it (--lora-alpha, see its training config)"
        )
    plain: dict[str, Tensor] = {}
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
        base, down, up = parts["base"], parts["lora_A"].float(), parts["lora_B"].float()
        plain[f"{layer}.weight"] = (base.float() + alpha / down.shape[0] * (up @ down)).to(base.dtype)
        if "base.bias" in parts:
            plain[f"{layer}.bias"] = parts["base.bias"]
    return plain
