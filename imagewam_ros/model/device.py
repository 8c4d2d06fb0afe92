# SPDX-License-Identifier: Apache-2.0
"""Which device a name stands for on this machine."""

import torch

from imagewam_ros.core.errors import ConfigError


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
