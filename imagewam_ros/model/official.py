# SPDX-License-Identifier: Apache-2.0
"""Read the authors' checkpoints: a torch.save dictionary with `mot` and `proprio_encoder`.

The file is memory-mapped and read without executing anything in it. Tensors that it names
twice are dropped, then names and shapes must be exactly the network's (the authors load with
strict=False and only warn).
"""

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # only to recognise what torch raises
from typing import Any

import torch
from torch import Tensor

from imagewam_ros.core.errors import CheckpointError
from imagewam_ros.model.checkpoint import audit
from imagewam_ros.model.lora import merged
from imagewam_ros.model.network import ImageWamNetwork
from imagewam_ros.model.safetensors_stream import Lazy, lazily

VIDEO, ACTION, PROPRIO = "mixtures.video.transformer.", "mixtures.action.", "proprio_encoder."
ALIAS = "mixtures.video."
ALIASED_LAYERS = {"double_blocks.": "double_blocks.", "single_blocks.": "single_blocks.", "blocks.": "layers."}
"""Layers that the authors' module registers twice: name in the alias, name in the transformer."""

FLOATS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
"""Types that weights may have; whole numbers would be codes of something."""


def read_official(path: Path) -> dict[str, Any]:
    """Open a checkpoint, tensors memory-mapped. Raises CheckpointError; executes nothing."""
    try:
        data = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"no such file: {path}; check the path") from None
    except UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors and was refused, nothing in it was executed ({_first_line(error)}); "
            "get the file from its authors again"
        ) from None
    except (RuntimeError, EOFError, ValueError, OSError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({_first_line(error)}); it is truncated or no torch checkpoint, download it again"
        ) from None
    if not isinstance(data, dict) or not isinstance(data.get("mot"), Mapping):
        found = sorted(map(str, data))[:8] if isinstance(data, dict) else type(data).__name__
        raise CheckpointError(f"{path} has no 'mot' (found {found}); it is not an ImageWAM checkpoint")
    return data


def network_state(data: Mapping[str, Any], path: Path, lora_alpha: float | None = None) -> dict[str, Tensor | Lazy]:
    """Tensors under our names (video., action., proprio_encoder.), aliases dropped and LoRA adapters merged.

    Raises CheckpointError.
    """
    if "proprio_encoder" not in data:
        raise CheckpointError(f"{path} has no 'proprio_encoder'; it was saved without, export it again")
    mot, encoder = (_tensors(data, part, path) for part in ("mot", "proprio_encoder"))
    state: dict[str, Tensor] = {}
    for name, tensor in mot.items():
        if name.startswith(VIDEO):
            state["video." + name.removeprefix(VIDEO)] = tensor
        elif name.startswith(ACTION):
            state["action." + name.removeprefix(ACTION)] = tensor
        elif _original(name) not in mot:
            state[name] = tensor  # the audit will call it unexpected
    proprio = {PROPRIO + name: tensor for name, tensor in encoder.items()}
    return merged(state, lora_alpha, path) | proprio


def _tensors(data: Mapping[str, Any], part: str, path: Path) -> Mapping[str, Tensor]:
    """One part of the dictionary, if it holds nothing but weights under names. Raises CheckpointError."""
    found = data[part]
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{path}: {part} is {type(found).__name__}, expected weights; export it again")
    for name, tensor in found.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path}: {part} holds {name!r}: {type(tensor).__name__}, expected weights by name")
        plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
        if not plain or tensor.dtype not in FLOATS:
            raise CheckpointError(
                f"{path}: {name} is {str(tensor.dtype).removeprefix('torch.')} ({tensor.layout}, {tensor.device}), "
                "expected plain bfloat16, float16 or float32 numbers; quantised weights are not read"
            )
    return found


def load_official(
    network: ImageWamNetwork,
    path: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    lora_alpha: float | None = None,
) -> int:
    """Give a network built on "meta" the weights of a checkpoint and return its step. Raises CheckpointError."""
    data = read_official(path)
    state = audited(network_state(data, path, lora_alpha), network, path)
    made = {name: lazily(tensor).make().to(device, dtype or tensor.dtype) for name, tensor in state.items()}
    network.load_state_dict(made, strict=True, assign=True)
    return int(data.get("step", 0))


def audited(state: Mapping[str, Tensor | Lazy], network: ImageWamNetwork, path: Path) -> dict[str, Tensor | Lazy]:
    """Return the tensors that the network has, unused ones left out. Raises CheckpointError naming every other."""
    kept = {name: tensor for name, tensor in state.items() if not (network.unused and re.match(network.unused, name))}
    audit({name: tuple(tensor.shape) for name, tensor in kept.items()}, network, path)
    return kept


def finite(name: str, tensor: Tensor | Lazy, path: Path) -> Lazy:
    """The tensor; making it raises CheckpointError where it holds numbers that are none, as a spoilt file may."""
    lazy = lazily(tensor)

    def make() -> Tensor:
        made = lazy.make()
        if not made.sum(dtype=torch.float32).isfinite():
            raise CheckpointError(
                f"{path}: {name} holds infinite numbers or NaN; the file is spoilt, download it again"
            )
        return made

    return lazy._replace(make=make)


def _original(alias: str) -> str:
    """Name under which an alias' tensor is stored too."""
    for short, full in ALIASED_LAYERS.items():
        if alias.startswith(ALIAS + short):
            return VIDEO + full + alias.removeprefix(ALIAS + short)
    return ""


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:200]
