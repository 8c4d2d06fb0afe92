# SPDX-License-Identifier: Apache-2.0
"""Names of devices."""

import pytest
import torch

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.device import choose_device, explained_memory


def test_names_that_exist() -> None:
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") == ("cuda" if torch.cuda.device_count() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:", "mps"])
def test_unknown_name(name: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown device '{name}'; use auto, cpu, cuda or cuda:N"):
        choose_device(name)


def test_absent_gpu() -> None:
    absent = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ConfigError, match=f"device '{absent}' was asked for and [0-9]+ GPUs were found"):
        choose_device(absent)


def test_too_little_memory_says_what_to_change() -> None:
    text = r"out of memory on cpu \(.*allocate memory.*\); use a smaller one$"
    with pytest.raises(ConfigError, match=text), explained_memory("cpu", "use a smaller one"):
        torch.empty(1 << 60, dtype=torch.uint8)
    text = r"out of memory on cuda \(CUDA out of memory\. Tried\); use less"
    with pytest.raises(ConfigError, match=text), explained_memory("cuda", "use less"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried\nmore lines")


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="size of tensor a"), explained_memory("cpu", "use less"):
        torch.ones(2) + torch.ones(3)
