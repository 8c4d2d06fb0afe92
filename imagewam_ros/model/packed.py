# SPDX-License-Identifier: Apache-2.0
"""Linear layers whose weights lie as a processor's matrix kernels read them, for inference on a CPU.

Plain weights are laid out anew in every call; here that is done once. Products differ from the
plain layer's by rounding only. The operations are those of torch's own compiler for frozen weights
(`torch/_inductor/mkldnn_ir.py`).
"""

from copy import deepcopy
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def packed(module: Module) -> Module:
    """Return a copy with packed linear layers that shares all other weights with `module`.

    The plain weights are kept by nobody but `module`.
    """
    copy = deepcopy(module, {id(part): part for part in (*module.parameters(), *module.buffers())})
    pack(copy)
    return copy


def pack(module: nn.Module) -> None:
    """Pack linear layers in place, one by one: memory holds one of them twice, not all.

    Layers of another class (adapters, quantised ones) stay as they are, and so does every layer that this
    processor has no kernels for.
    """
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear and can_pack(layer.weight):
                setattr(parent, name, PackedLinear(layer))


def can_pack(weight: Tensor) -> bool:
    """Tell whether this processor has the kernels for a weight like this one."""
    if type(weight) is not nn.Parameter or weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    narrow = weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return bool(weight.dtype == torch.float32 or narrow)


class PackedLinear(nn.Module):
    """x W^T + b with packed weights, never changed; gradients pass to x only."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight = _pack(layer.weight.detach())
        self.bias = None if layer.bias is None else layer.bias.detach()
        self._rows: dict[tuple[int, int], PackedLinear] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (..., inputs) to (..., outputs)."""
        if x.requires_grad and torch.is_grad_enabled():
            result: Tensor = _Product.apply(x, self)  # type: ignore[no-untyped-call]
            return result
        return _product(x, self.weight, self.bias)

    def __deepcopy__(self, memo: dict[int, Any]) -> "PackedLinear":
        return self

    def rows(self, start: int, stop: int) -> "PackedLinear":
        """Return the layer that gives only these outputs; made once."""
        if (start, stop) not in self._rows:
            weight = self.weight.to_dense()[start:stop].contiguous()
            part = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
            part.weight = nn.Parameter(weight, requires_grad=False)
            part.bias = None if self.bias is None else nn.Parameter(self.bias[start:stop], requires_grad=False)
            self._rows[start, stop] = PackedLinear(part)
        return self._rows[start, stop]

    @cached_property
    def transposed(self) -> Tensor:
        """Packed weights of the way back."""
        return _pack(self.weight.to_dense().t().contiguous())


class _Product(torch.autograd.Function):
    """The product as autograd sees it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: PackedLinear) -> Tensor:
        ctx.layer = layer
        return _product(x, layer.weight, layer.bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return _product(gradient, ctx.layer.transposed, None), None


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


def _pack(weight: Tensor) -> Tensor:
    result: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return result
