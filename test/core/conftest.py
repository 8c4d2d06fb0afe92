# SPDX-License-Identifier: Apache-2.0
"""Values that the core tests share."""

import pytest
from small_contract import small_contract

from imagewam_ros.core.contract import Contract
from imagewam_ros.core.embodiment import Embodiment, load_embodiment


@pytest.fixture
def robot() -> Embodiment:
    return load_embodiment("sim_cell")


@pytest.fixture
def contract(robot: Embodiment) -> Contract:
    return small_contract(robot)
