# SPDX-License-Identifier: Apache-2.0
"""Torch's "meta" device in the place of a GPU: says which operation would have met tensors of two devices."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

COPIES = ("aten::copy_", "aten::_to_copy")


class OneDevice(TorchDispatchMode):
    """Raise where an operation reads tensors of several devices, as CUDA does; single numbers of the CPU are fine."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """See `TorchDispatchMode`."""
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        devices = {str(tensor.device) for tensor in read if tensor.ndim or tensor.device.type != "cpu"}
        if len(devices) > 1 and func.name().split(".")[0] not in COPIES:
            raise RuntimeError(f"{func.name()} reads tensors of {', '.join(sorted(devices))}")
        return func(*args, **(kwargs or {}))


def on_one_device(work: Callable[[], Any]) -> Any:
    """Return what `work` does, checked."""
    with OneDevice():
        return work()
