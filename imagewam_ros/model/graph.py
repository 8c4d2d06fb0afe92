# SPDX-License-Identifier: Apache-2.0
"""A function of one tensor as one CUDA graph: all its kernels in a single launch, at fixed addresses."""

from collections.abc import Callable

import torch
from torch import Tensor

from imagewam_ros.core.errors import ConfigError

WARM_UP = 3
"""Runs before the capture, as torch's documentation asks for."""


class Captured:
    """Replay `work` on inputs like the given one. What it returns is overwritten by the next replay.

    `work` must neither wait for the device nor depend on values. Raises ConfigError off CUDA and
    when the capture fails.
    """

    def __init__(self, work: Callable[[Tensor], Tensor], like: Tensor) -> None:
        require_cuda(like.device)
        self._input = like.clone()
        self._graph = torch.cuda.CUDAGraph()
        side = torch.cuda.Stream(like.device)
        side.wait_stream(torch.cuda.current_stream(like.device))
        try:
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    work(self._input)
            torch.cuda.current_stream(like.device).wait_stream(side)
            with torch.cuda.graph(self._graph):
                self._output = work(self._input)
        except RuntimeError as error:
            raise ConfigError(f"capturing a CUDA graph failed ({error}); set cuda_graph to false") from error

    def __call__(self, value: Tensor) -> Tensor:
        """Run the graph on `value`."""
        self._input.copy_(value)
        self._graph.replay()
        return self._output


def require_cuda(device: torch.device) -> None:
    """Raise ConfigError unless graphs can be captured on `device`."""
    if device.type != "cuda":
        raise ConfigError(f"cuda_graph needs a CUDA device, found {device.type}; set cuda_graph to false")
