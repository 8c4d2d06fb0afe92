# SPDX-License-Identifier: Apache-2.0
"""Prefill and expert through torch's compiler, which fuses their small kernels; an option, and off by default.

Both trace into one graph without breaks for the first length of text and into another one, at the second length,
for all lengths. A failure is an error that says what to change: nothing falls back to the plain layers.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch._dynamo import config
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.network import ImageWamNetwork

GRAPHS = 32
"""Kept of each function. Five are needed: cache none, fitting or outgrown, at one length of text and at any; torch
gives up at eight.
"""


class Compiled:
    """`work`, compiled at its first call. Raises ConfigError where that fails."""

    def __init__(self, work: Callable[..., Any], backend: str = "inductor") -> None:
        self._work = torch.compile(work, fullgraph=True, backend=backend)

    def __call__(self, *values: Any, **named: Any) -> Any:
        """Run it."""
        try:
            return self._work(*values, **named)
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"torch.compile failed ({type(error).__name__}: {reason}); set compile to false"
            ) from error


def compile_network(network: ImageWamNetwork, backend: str = "inductor") -> None:
    """Have a network's prefill and its expert compiled at their first calls, in place.

    Lets torch keep more graphs of a function than by default, in the whole process.
    """
    config.recompile_limit = max(config.recompile_limit, GRAPHS)
    setattr(network, network.compiled_part, Compiled(getattr(network, network.compiled_part), backend))
    network.action.forward = Compiled(network.action.forward, backend)
