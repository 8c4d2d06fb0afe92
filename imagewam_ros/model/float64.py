# SPDX-License-Identifier: Apache-2.0
"""The networks in float64, to tell rounding from mistakes. For comparisons only: nothing runs like this."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class Float64(TorchFunctionMode):
    """What is float64 stays so where the code asks for at least float32.

    Constants that the networks define in float32 (features of time, rotary tables, the schedule) stay what they
    are: they are part of the function, its sums are not.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """See `torch.overrides`."""
        if func is torch.Tensor.float and args[0].dtype == torch.float64:
            return args[0]
        return func(*args, **(kwargs or {}))
