# SPDX-License-Identifier: Apache-2.0
"""Count what a chunk costs without running it: FLOPs, operations, bytes of weights and of cached keys and values.

Works on any device; on "meta" real sizes take no memory. One operation is one non-view call into
torch's kernels, before any compilation. Attention counts as its plain decomposition everywhere.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


@dataclass
class Cost:
    """flops; operations; bytes of weights read (weight_bytes) and of the cache read and moved (cache_bytes)."""

    flops: int = 0
    operations: int = 0
    weight_bytes: int = 0
    cache_bytes: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.flops + other.flops,
            self.operations + other.operations,
            self.weight_bytes + other.weight_bytes,
            self.cache_bytes + other.cache_bytes,
        )

    @property
    def nbytes(self) -> int:
        """Weights and cache."""
        return self.weight_bytes + self.cache_bytes


@dataclass
class Counter:
    """Count calls; `modules` hold the weights, `watch` adds tensors that count as cache."""

    modules: Iterable[nn.Module]
    _cache: set[int] = field(default_factory=set)

    def watch(self, tensors: Iterable[Tensor]) -> None:
        """Count reads of these by attention, and their concatenation, from now on."""
        self._cache |= {_storage(tensor) for tensor in tensors}

    def cost(self, work: Callable[[], Any]) -> tuple[Any, Cost]:
        """Do the work. Returns its result and what it cost."""
        weights = {_storage(weight) for module in self.modules for weight in module.parameters()}
        flops = FlopCounterMode(display=False)
        with torch.no_grad(), flops, _Operations(weights) as seen, _CacheReads(self._cache) as reads:
            result = work()
        return result, Cost(flops.get_total_flops(), seen.operations, seen.nbytes, reads.nbytes)


class _Operations(TorchDispatchMode):
    """Non-view operations, and bytes of the weights among their arguments."""

    def __init__(self, weights: set[int]) -> None:
        super().__init__()
        self.weights, self.operations, self.nbytes = weights, 0, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and func is not torch.ops.aten._unsafe_view.default:
            self.operations += 1
            if func is torch.ops.aten.embedding.default:
                self.nbytes += _unique_bytes(result)
            else:
                leaves = (x for x in tree_leaves(args) if isinstance(x, Tensor))
                self.nbytes += sum(_unique_bytes(x) for x in leaves if _storage(x) in self.weights)
        return result


class _CacheReads(TorchFunctionMode):
    """Bytes of cached keys and values that attention reads, and that concatenation reads and writes."""

    def __init__(self, cache: set[int]) -> None:
        super().__init__()
        self.cache, self.nbytes = cache, 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.cat and any(_storage(x) in self.cache for x in args[0]):
            self.nbytes += 2 * _unique_bytes(result)
            self.cache.add(_storage(result))
        elif func is torch.nn.functional.scaled_dot_product_attention:
            self.nbytes += sum(_unique_bytes(x) for x in args[1:3] if _storage(x) in self.cache)
        return result


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _unique_bytes(tensor: Tensor) -> int:
    """Bytes of a view, expanded dimensions once."""
    sizes = [size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride]
    return int(torch.Size(sizes).numel() * tensor.element_size())
