# SPDX-License-Identifier: Apache-2.0
"""Write a safetensors file one tensor at a time, so that memory holds one tensor and not the file.

Format: 8 bytes header length (little endian), header as JSON, data in the header's order.
Source: the format's description at github.com/huggingface/safetensors.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}

TYPES = {name: dtype for dtype, name in NAMES.items()}
"""The format's names and torch's types."""

ALIGNMENT = 8


class Lazy(NamedTuple):
    """A tensor's shape and type, and how to make it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], Tensor]


def lazily(tensor: "Tensor | Lazy") -> Lazy:
    """A tensor that is there already, or as it is."""
    if isinstance(tensor, Lazy):
        return tensor
    return Lazy(tuple(tensor.shape), tensor.dtype, partial(Tensor.detach, tensor))


def write(path: Path, tensors: Mapping[str, Lazy]) -> None:
    """Write all tensors; the file appears under its name when it is whole."""
    header, offset = {}, 0
    for name, lazy in tensors.items():
        size = lazy.dtype.itemsize
        for side in lazy.shape:
            size *= side
        header[name] = {"dtype": NAMES[lazy.dtype], "shape": list(lazy.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for lazy in tensors.values():
            tensor = lazy.make().detach().to("cpu", lazy.dtype).contiguous()
            file.write(memoryview(tensor.reshape(-1).view(torch.uint8).numpy()))  # type: ignore[arg-type]
    part.replace(path)
