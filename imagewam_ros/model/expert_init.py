# SPDX-License-Identifier: Apache-2.0
"""Start an action expert from its backbone: same-named weights, resized by linear interpolation.

Fused projections (q | k | v | MLP) are resized part by part, so that no row mixes two parts.
The authors interpolate across the boundaries; `authors_way` does the same, for parity.
Source: docs/model.md, section 3.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Inheritance:
    """How an expert takes over weights. Names are regular expressions.

    random stays as it was drawn; renamed turns an expert's name into the backbone's; parts give, for
    a fused tensor, the sizes of its parts along one axis as (axis, backbone's sizes, expert's
    sizes). rescaled multiplies by sqrt(inputs before / inputs after), as FLUX.2's authors do.
    """

    random: str = r"^(action_encoder|head)\."
    renamed: Sequence[tuple[str, str]] = ()
    parts: Sequence[tuple[str, int, tuple[int, ...], tuple[int, ...]]] = field(default=())
    rescaled: bool = False


def inherited(
    wanted: Mapping[str, Tensor], source: Mapping[str, Tensor], rule: Inheritance, authors_way: bool = False
) -> dict[str, Tensor]:
    """Return the weights for the names in `wanted`, resized to their shapes."""
    result = {}
    for name, like in wanted.items():
        origin = origin_of(name, rule)
        if origin is None:
            continue
        parts = () if authors_way else tuple(part[1:] for part in rule.parts if re.search(part[0], name))
        result[name] = _resized(source[origin], tuple(like.shape), parts, rule.rescaled)
    return result


def origin_of(name: str, rule: Inheritance) -> str | None:
    """Name of the backbone's tensor that the expert's `name` starts from; None where it is drawn at random."""
    if re.search(rule.random, name):
        return None
    for pattern, replacement in rule.renamed:
        name = re.sub(pattern, replacement, name)
    return name


def _resized(
    weight: Tensor,
    shape: tuple[int, ...],
    parts: Iterable[tuple[int, tuple[int, ...], tuple[int, ...]]],
    rescaled: bool,
) -> Tensor:
    """Resize axis by axis; parts are (axis, sizes before, sizes after)."""
    split = {axis: (before, after) for axis, before, after in parts}
    result = weight
    for axis, size in enumerate(shape):
        if result.shape[axis] == size:
            continue
        before, after = split.get(axis, ((result.shape[axis],), (size,)))
        pieces = zip(result.split(before, axis), after, strict=True)
        result = torch.cat([_interpolated(piece, axis, length) for piece, length in pieces], axis)
    if rescaled and len(shape) > 1 and weight.shape[-1] != shape[-1]:
        result = result * math.sqrt(weight.shape[-1] / shape[-1])
    return result


def _interpolated(weight: Tensor, axis: int, size: int) -> Tensor:
    """Resize one axis, first and last entries kept."""
    if weight.shape[axis] == size:
        return weight
    rows = weight.movedim(axis, -1)
    flat = F.interpolate(rows.reshape(1, -1, rows.shape[-1]).float(), size, mode="linear", align_corners=True)
    return flat.reshape(*rows.shape[:-1], size).movedim(-1, axis).to(weight.dtype)
