# SPDX-License-Identifier: Apache-2.0
"""The simulated cell's robot and measured joints, for all operators."""

import numpy as np
import pytest

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.schema import JointState

READY = (0.0, 0.6, 1.2, 0.0, -0.4, 0.0, 0.02)
"""One arm away from bounds and singular poses, gripper half open."""


@pytest.fixture(scope="session")
def robot():
    return load_embodiment("sim_cell")


@pytest.fixture
def ready():
    return np.array(READY * 2)


@pytest.fixture(scope="session")
def measured(robot):
    """Measured joints at rest."""

    def make(stamp_ns, position):
        return JointState(stamp_ns, robot.joint_names, position, np.zeros(len(position)))

    return make
