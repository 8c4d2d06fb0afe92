# SPDX-License-Identifier: Apache-2.0
"""Which device a name stands for on this machine, and what to do when its memory does not suffice."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from imagewam_ros.core.errors import ConfigError

NO_MEMORY = "allocate memory"
"""What torch's allocator for processors says."""


def choose_device(name: str) -> str:
    """Return the torch device that `name` (auto, cpu, cuda or cuda:N) stands for here. Raises ConfigError."""
    found = torch.cuda.device_count()
    if name == "auto":
        return "cuda" if found else "cpu"
    if name == "cpu":
        return name
    kind, _, number = name.partition(":")
    if kind != "cuda" or not (number.isdecimal() or name == "cuda"):
        raise ConfigError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N")
    if int(number or 0) >= found:
        why = "" if torch.version.cuda else "; this torch is built for the CPU only"
        raise ConfigError(f"device {name!r} was asked for and {found} GPUs were found{why}; use cpu, or auto")
    return name


@contextmanager
def explained_memory(device: torch.device | str, remedy: str) -> Iterator[None]:
    """Turn an allocation that fails inside into a ConfigError that says what to change."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and NO_MEMORY not in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise ConfigError(f"out of memory on {device} ({reason}); {remedy}") from error
