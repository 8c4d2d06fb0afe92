# SPDX-License-Identifier: Apache-2.0
"""The match-first clutch: a leader moves nothing until it is where its follower is.

released --arm--> matching --all joints within tolerance for settle_s--> engaged
engaged --leader silent, jumped, or follower left behind--> matching
"""

from dataclasses import dataclass

import numpy as np

from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.schema import Floats
from imagewam_ros.teleop.operator import Clutch


@dataclass(frozen=True)
class ClutchConfig:
    """Tolerances, in rad for arm joints and as a share of the range for grippers.

    match: engages below. slip: a follower further behind than this disengages; it was blocked or
    stopped. jump: largest change between two leader samples; more is a bad encoder or a lost sample.
    """

    match_rad: float = 0.1
    match_gripper: float = 0.25
    slip_rad: float = 0.8
    jump_rad: float = 0.3
    settle_s: float = 0.3
    stale_s: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.match_rad < self.slip_rad:
            raise ConfigError(
                f"match_rad must be positive and below slip_rad, found {self.match_rad} and {self.slip_rad}"
            )
        if not (0 < self.match_gripper <= 1 and self.jump_rad > 0 and self.settle_s >= 0 and self.stale_s > 0):
            raise ConfigError(
                "match_gripper must be in (0, 1], jump_rad and stale_s positive, settle_s not negative, found "
                f"{self.match_gripper}, {self.jump_rad}, {self.stale_s}, {self.settle_s}"
            )


class MatchClutch:
    """State of the clutch of all driven joints: both arms engage together or not at all."""

    def __init__(
        self, embodiment: Embodiment, driven: "np.ndarray[tuple[int], np.dtype[np.bool_]]", config: ClutchConfig
    ) -> None:
        """Watch the `driven` joints, a (joints,) mask."""
        self.state, self.reason = Clutch.RELEASED, "not armed"
        self._config, self._joints = config, embodiment.joints
        self._arm_joints = driven & ~embodiment.gripper_mask
        limits = embodiment.limits
        gripper = config.match_gripper * (limits.upper - limits.lower)
        self._match = np.where(embodiment.gripper_mask, gripper, config.match_rad)
        self._driven = driven
        self._previous: Floats | None = None
        self._matched_ns: int | None = None

    def arm(self) -> None:
        """Allow engaging once the leader matches."""
        if self.state is Clutch.RELEASED:
            self._match_again("armed; waiting for joint states")

    def release(self, reason: str) -> None:
        """Let go until armed again."""
        self.state, self.reason = Clutch.RELEASED, reason

    def interrupt(self, reason: str) -> None:
        """Let go until the leader matches again."""
        if self.state is not Clutch.RELEASED:
            self._match_again(reason)

    def update(self, now_ns: int, leader: Floats | None, age_ns: int, follower: Floats) -> None:
        """Take (joints,) of leader and follower; leader is None before its first sample."""
        previous, self._previous = self._previous, leader
        if self.state is Clutch.RELEASED:
            return
        fault = self._fault(leader, previous, age_ns)
        if fault or leader is None:
            self._match_again(fault)
            return
        offset = np.where(self._driven, np.abs(leader - follower), 0.0)
        if self.state is Clutch.ENGAGED:
            self._check_slip(offset)
        else:
            self._check_match(now_ns, offset)

    def _fault(self, leader: Floats | None, previous: Floats | None, age_ns: int) -> str:
        if leader is None:
            return "no leader joint states yet; are both leaders' drivers running?"
        if age_ns > self._config.stale_s * 1e9:
            return f"leader silent for {age_ns / 1e9:.2f} s (limit {self._config.stale_s:.2f} s)"
        if previous is not None:
            step = np.where(self._arm_joints, np.abs(leader - previous), 0.0)
            if step.max() > self._config.jump_rad:
                return f"leader {self._worst(step)} jumped (limit {self._config.jump_rad:.2f} rad); check its encoder"
        return ""

    def _check_slip(self, offset: Floats) -> None:
        offset = np.where(self._arm_joints, offset, 0.0)
        if offset.max() > self._config.slip_rad:
            self._match_again(
                f"follower {self._worst(offset)} behind its leader (limit {self._config.slip_rad:.2f} rad)"
            )

    def _check_match(self, now_ns: int, offset: Floats) -> None:
        excess = offset / self._match
        if excess.max() > 1:
            self._matched_ns = None
            joint = int(np.argmax(excess))
            self.reason = (
                f"{self._described(joint, offset[joint])} from its follower (limit {self._match[joint]:.3f}); "
                "move the leader there"
            )
            return
        self._matched_ns = now_ns if self._matched_ns is None else self._matched_ns
        self.reason = "matched; keep still"
        if now_ns - self._matched_ns >= self._config.settle_s * 1e9:
            self.state, self.reason = Clutch.ENGAGED, ""

    def _match_again(self, reason: str) -> None:
        self.state, self.reason, self._matched_ns = Clutch.MATCHING, reason, None

    def _worst(self, amounts: Floats) -> str:
        joint = int(np.argmax(amounts))
        return self._described(joint, amounts[joint])

    def _described(self, joint: int, amount: float) -> str:
        return f"{self._joints[joint].name} {amount:.3f} {self._joints[joint].unit}"
