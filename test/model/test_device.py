# SPDX-License-Identifier: Apache-2.0
"""Names of devices."""

import pytest
import torch

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.device import choose_device


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
