# SPDX-License-Identifier: Apache-2.0
"""What trajectory controllers tell of themselves, where control_msgs is installed.

A controller that was deactivated keeps its subscriptions, so only its own state topic shows that it
no longer moves the arm. It also knows its tracking error in its own time.
"""

import importlib
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.nodes import qos, topics
from imagewam_ros.nodes.lifecycle import ManagedNode

Tell = Callable[[str, Mapping[str, float]], None]
"""Takes an arm and the distances, rad, of its joints from what their controller aims at."""

SILENT_S = 1.0


class ControllerStates:
    """Subscriptions to the state topics of both arms; `heard` are the arms whose controller ever told."""

    def __init__(self, node: ManagedNode, robot: Embodiment, tell: Tell) -> None:
        """Subscribe on `node`, where the message type is installed."""
        self.heard: dict[str, float] = {}
        self._tell = tell
        try:
            kind = importlib.import_module("control_msgs.msg").JointTrajectoryControllerState
        except ImportError:
            return
        for arm in robot.arms:
            topic = topics.controller_state(arm.side)
            node.subscribe(kind, topic, partial(self._on_state, arm.side), qos.JOINT_STATES)

    def fallen_silent(self) -> list[str]:
        """State topics that were heard and are not any more."""
        now_s = time.monotonic()
        return [topics.controller_state(side) for side, at_s in self.heard.items() if now_s - at_s > SILENT_S]

    def _on_state(self, side: str, message: Any) -> None:
        self.heard[side] = time.monotonic()
        self._tell(side, dict(zip(message.joint_names, message.error.positions, strict=False)))
