# SPDX-License-Identifier: Apache-2.0
"""Tool velocities from a hand-held device to joint targets of both arms.

Each arm has a target pose that the wish moves; damped least squares takes the joints there. The
pose, not the joint velocity, is integrated, so a straight push stays straight and level.
"""

from dataclasses import dataclass

import numpy as np
import pinocchio as pin

from imagewam_ros.core.errors import ConfigError, DeviceError
from imagewam_ros.core.schema import Floats, JointState
from imagewam_ros.kinematics.chains import Chains
from imagewam_ros.teleop.jog import Jog, JogDevice
from imagewam_ros.teleop.operator import ChunkMaker, Clutch, Step

SIDES = ("left", "right")
FRAMES = ("base", "tool")
DAMPING = 1e-3
"""Of the least squares; keeps joint rates bounded near singular poses."""


@dataclass(frozen=True)
class CartesianConfig:
    """Speeds at full deflection, and what keeps the target near the arm.

    frame: axes of the wish, base (the URDF's root) or tool. joint_share: most of each joint's
    velocity limit that is used. lead_rad: furthest a joint's target runs ahead of its measured
    position, so a blocked arm is not wound up. reach_m and reach_rad: a tool further than this from
    its target pose (end of reach, joint bound) takes the target back to itself. keep: engaging goes
    on from the targets left before, not from the measured arm, where every joint lies between its
    target and where it was, within this (rad, or share of a gripper's range): then nobody else has
    moved the robot, and an arm's sag is not followed down nor a grip loosened.
    """

    linear_m_s: float = 0.2
    angular_rad_s: float = 1.0
    gripper_share_s: float = 1.0
    frame: str = "base"
    joint_share: float = 0.5
    lead_rad: float = 0.25
    reach_m: float = 0.02
    reach_rad: float = 0.1
    keep: float = 0.06
    stale_s: float = 0.2

    def __post_init__(self) -> None:
        if self.frame not in FRAMES:
            raise ConfigError(f"frame must be base or tool, found {self.frame!r}")
        if not 0 < self.joint_share <= 1:
            raise ConfigError(f"joint_share must be in (0, 1], found {self.joint_share}")
        positive = (
            "linear_m_s",
            "angular_rad_s",
            "gripper_share_s",
            "lead_rad",
            "reach_m",
            "reach_rad",
            "keep",
            "stale_s",
        )
        wrong = [name for name in positive if not getattr(self, name) > 0]
        if wrong:
            raise ConfigError(f"{', '.join(wrong)} must be positive")


class CartesianOperator:
    """A hand-held device as an `Operator`. The dead-man switch of each arm is its clutch."""

    def __init__(self, chains: Chains, device: JogDevice, config: CartesianConfig, chunks: ChunkMaker) -> None:
        self._chains, self._device, self._config, self._chunks = chains, device, config, chunks
        self._embodiment = chains.embodiment
        self._armed, self._reason = False, "not armed"
        self._last_ns = 0
        self._sides: tuple[str, ...] = ()
        self._target = np.zeros(len(self._embodiment.joints))
        self._measured = np.full(len(self._embodiment.joints), np.nan)
        self._poses: dict[str, Floats] = {}

    def arm(self) -> None:
        """Allow engaging by the dead-man switch."""
        self._armed = True

    def release(self, reason: str) -> None:
        """Let go until armed again."""
        self._armed, self._reason, self._sides = False, reason, ()

    def step(self, now_ns: int, follower: JointState) -> Step:
        """Move the targets by the present wish; on letting go, one last chunk stops at the present target."""
        try:
            jog = self._device.read(now_ns)
        except DeviceError as error:
            return self._wait(str(error))
        age_ns = now_ns - follower.stamp_ns
        if age_ns > self._config.stale_s * 1e9:
            return self._wait(f"joint_states silent for {age_ns / 1e9:.2f} s; is the robot running?")
        if not self._armed:
            return self._wait(self._reason)
        enabled = tuple(side for side, wanted in zip(SIDES, jog.enabled, strict=True) if wanted)
        if not enabled:
            return self._rest(now_ns)
        elapsed_s = self._elapsed_s(now_ns)
        for side in enabled:
            if side not in self._sides:
                self._begin(side, follower.position)
        before, self._sides, self._last_ns = self._target.copy(), enabled, now_ns
        for side in enabled:
            self._move(side, jog, SIDES.index(side), elapsed_s, follower.position)
        velocity = (self._target - before) / elapsed_s
        return Step(self._chunks.make(now_ns, self._target, velocity, enabled), Clutch.ENGAGED, "")

    def close(self) -> None:
        """Release the device."""
        self._device.close()

    def _wait(self, reason: str) -> Step:
        self._sides = ()
        return Step(None, Clutch.MATCHING if self._armed else Clutch.RELEASED, reason)

    def _rest(self, now_ns: int) -> Step:
        if not self._sides:
            return self._wait("hold the dead-man switch to move")
        still = np.zeros_like(self._target)
        chunk = self._chunks.make(now_ns, self._target, still, self._sides)
        self._sides = ()
        return Step(chunk, Clutch.ENGAGED, "")

    def _elapsed_s(self, now_ns: int) -> float:
        """Time since the last motion; one period at its beginning and at most two."""
        period_s = self._chunks.period_s
        elapsed_s = (now_ns - self._last_ns) / 1e9
        return min(elapsed_s, 2 * period_s) if self._sides and elapsed_s > 0 else period_s

    def _begin(self, side: str, measured: Floats) -> None:
        """Start an arm from where it is, or where only this operator has left it."""
        limits, part = self._embodiment.limits, self._embodiment.arm_slice(side)
        span = np.where(self._embodiment.gripper_mask, limits.upper - limits.lower, 1.0)
        spare = self._config.keep * span
        low, high = np.minimum(self._measured, self._target) - spare, np.maximum(self._measured, self._target) + spare
        untouched = (low <= measured) & (measured <= high)
        if not untouched[part].all():
            self._target[part] = np.clip(measured, limits.lower, limits.upper)[part]
        self._poses[side] = self._chains.forward(self._target)[side]

    def _move(self, side: str, jog: Jog, row: int, elapsed_s: float, measured: Floats) -> None:
        config, limits = self._config, self._embodiment.limits
        whole = self._embodiment.arm_slice(side)
        arm, gripper = slice(whole.start, whole.stop - 1), whole.stop - 1
        pose = self._poses[side]
        axes = pose[:3, :3] if config.frame == "tool" else np.eye(3)
        pose[:3, 3] += axes @ jog.linear[row] * (config.linear_m_s * elapsed_s)
        pose[:3, :3] = pin.exp3(axes @ jog.angular[row] * (config.angular_rad_s * elapsed_s)) @ pose[:3, :3]

        jacobian = self._chains.jacobian(side, self._target)
        error = _difference(self._chains.forward(self._target)[side], pose)
        step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + DAMPING * np.eye(6), error)
        fastest = np.max(np.abs(step) / (limits.velocity[arm] * config.joint_share * elapsed_s))
        moved = self._target[arm] + step / max(fastest, 1.0)
        near = np.clip(moved, measured[arm] - config.lead_rad, measured[arm] + config.lead_rad)
        self._target[arm] = np.clip(near, limits.lower[arm], limits.upper[arm])

        fingers = self._embodiment.arms[row].gripper
        stroke = (fingers.opened - fingers.closed) * config.gripper_share_s * elapsed_s
        wished = self._target[gripper] + stroke * jog.gripper[row]
        self._target[gripper] = np.clip(wished, limits.lower[gripper], limits.upper[gripper])

        reached = self._chains.forward(self._target)[side]
        left = _difference(reached, pose)
        if np.linalg.norm(left[:3]) > config.reach_m or np.linalg.norm(left[3:]) > config.reach_rad:
            self._poses[side] = reached
        self._measured[whole] = measured[whole]


def _difference(found: Floats, wanted: Floats) -> Floats:
    """(6,) from one pose to another: m and rad in the root frame's axes."""
    return np.concatenate([wanted[:3, 3] - found[:3, 3], pin.log3(wanted[:3, :3] @ found[:3, :3].T)])
