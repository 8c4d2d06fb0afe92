# SPDX-License-Identifier: Apache-2.0
"""Work as one CUDA graph: all its kernels in a single launch, at fixed addresses.

What is captured reads nothing back and branches on no value; `test/model/test_graph.py` traces both parts
of a chunk on a CPU and holds them to that. Captures on a device are tested where there is one.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.protocol import Context, Plan, PrefixCache

WARM_UP = 3
"""Runs before the capture, as torch's documentation asks for."""

KEPT = 8
"""Lengths of text whose graphs are kept; each holds memory of its own."""


class Captured:
    """Replay `work` on inputs like the given ones. What it returns is overwritten by the next replay.

    `work` must neither wait for the device nor depend on values. Raises ConfigError off CUDA and
    when the capture fails.
    """

    def __init__(self, work: Callable[..., Any], *like: Tensor) -> None:
        device = like[0].device
        require_cuda(device)
        self._inputs = [each.clone() for each in like]
        self._graph = torch.cuda.CUDAGraph()
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        try:
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    work(*self._inputs)
            torch.cuda.current_stream(device).wait_stream(side)
            # torch's own stream for captures lies on one device for good, and would miss work on another
            with torch.cuda.device(device), torch.cuda.graph(self._graph, stream=side):
                self._output = work(*self._inputs)
        except RuntimeError as error:
            raise ConfigError(f"capturing a CUDA graph failed ({error}); set cuda_graph to false") from error

    def __call__(self, *values: Tensor) -> Any:
        """Run the graph on values."""
        for kept, value in zip(self._inputs, values, strict=True):
            kept.copy_(value)
        self._graph.replay()
        return self._output


class Work(Protocol):
    """A prefill from text features alone."""

    def __call__(self, images: Tensor, proprio: Tensor, tokens: Tensor, cache: PrefixCache | None) -> PrefixCache:
        """Fill `cache` from images (1, 3, H, W), proprio (1, P) and features (1, L, ctx), or a new one without it."""


class GraphedPrefill:
    """Prefill by one graph per length of the text, each into a cache of its own.

    `room` gives a cache the room that denoising needs.
    """

    def __init__(
        self,
        work: Work,
        room: Callable[[PrefixCache], PrefixCache],
        capture: Callable[..., Any] = Captured,
    ) -> None:
        self._work, self._room, self._capture = work, room, capture
        self._kept: dict[torch.Size, tuple[PrefixCache, Any]] = {}

    def __call__(self, images: Tensor, proprio: Tensor, context: Context) -> PrefixCache:
        """Return the filled cache, the same one for the same length. Raises ConfigError for padded text."""
        if context.mask is not None:
            raise ConfigError("cuda_graph needs text without padding, which this checkpoint keeps; set it to false")
        length = context.tokens.shape
        if length not in self._kept:
            cache = self._room(self._work(images, proprio, context.tokens, None))

            make_room(self._kept)
            self._kept[length] = cache, self._capture(partial(self._work, cache=cache), images, proprio, context.tokens)
        cache, graph = self._kept[length]
        graph(images, proprio, context.tokens)
        return cache


class GraphedLoops:
    """Denoising loops by one graph per cache and plan."""

    def __init__(self, capture: Callable[..., Any] = Captured) -> None:
        self._capture = capture
        self._kept: dict[int, tuple[PrefixCache, dict[int, tuple[Plan, Any]]]] = {}
        self.captures = 0
        """Graphs that were made so far."""

    def __call__(self, loop: Callable[..., Tensor], cache: PrefixCache, plan: Plan, *inputs: Tensor) -> Tensor:
        """What `loop(*inputs, cache=cache, plan=plan)` gives; always the same loop for one cache and plan."""
        if id(cache) not in self._kept:  # cache and plan are kept, so no other has their numbers
            make_room(self._kept)
            self._kept[id(cache)] = cache, {}
        graphs = self._kept[id(cache)][1]
        if id(plan) not in graphs:
            graphs[id(plan)] = plan, self._capture(partial(loop, cache=cache, plan=plan), *inputs)
            self.captures += 1
        result: Tensor = graphs[id(plan)][1](*inputs)
        return result.clone()


def make_room(kept: dict[Any, Any]) -> None:
    """Forget the oldest entry of a full dictionary of graphs."""
    if len(kept) >= KEPT:
        del kept[next(iter(kept))]


def require_cuda(device: torch.device, option: str = "cuda_graph") -> None:
    """Raise ConfigError unless `option` can be had on `device`."""
    if device.type != "cuda":
        raise ConfigError(f"{option} needs a CUDA device, found {device.type}; set {option} to false")
