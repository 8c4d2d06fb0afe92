# SPDX-License-Identifier: Apache-2.0
"""Every quality of service of the graph, at one place."""

from rclpy.qos import QoSDurabilityPolicy, QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy


def _profile(depth: int, *, reliable: bool = True, latched: bool = False) -> QoSProfile:
    return QoSProfile(
        depth=depth,
        history=QoSHistoryPolicy.KEEP_LAST,
        reliability=QoSReliabilityPolicy.RELIABLE if reliable else QoSReliabilityPolicy.BEST_EFFORT,
        durability=QoSDurabilityPolicy.TRANSIENT_LOCAL if latched else QoSDurabilityPolicy.VOLATILE,
    )


IMAGES = _profile(2, reliable=False)
"""Subscriptions: a late image is worth nothing, and best effort matches drivers of either kind."""

IMAGES_OUT = _profile(5)
"""Reliable, as camera drivers offer by default: recorders may want every frame."""

JOINT_STATES = _profile(10, reliable=False)
"""Subscriptions: best effort matches drivers of either kind."""

JOINT_STATES_OUT = _profile(10)
"""Publishers: reliable, as joint_state_broadcaster's is, serves subscribers of either kind."""

CHUNKS = _profile(1)
"""Publishers: only a commander's newest chunk counts."""

CHUNKS_IN = _profile(10)
"""The executor: of two commanders at once neither may push the other's chunk out before it is judged."""

COMMANDS = _profile(1)
"""To controllers: an old command must not be sent again."""

COMMAND_LOG = _profile(500)
"""executor/command: nothing may be lost on the way to a recorder, up to half a second at 1 kHz."""

STATUS = _profile(1, latched=True)
"""A late subscriber learns the present state."""

JOY = _profile(10)
"""A press must not be lost."""

DIAGNOSTICS = _profile(10)
CLOCK_OUT = _profile(10)
"""Reliable on purpose: a lost tick of simulated time is a lost control period."""
