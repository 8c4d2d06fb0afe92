# SPDX-License-Identifier: Apache-2.0
"""Leader arms: two small copies of the arms whose joints the followers repeat.

A leader's joint states need not look like the robot's: names, signs and zero offsets are mapped
here, and the leader's gripper or trigger is stretched over the follower's range.
"""

from dataclasses import dataclass, field

import numpy as np

from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import ConfigError, EmbodimentMismatch
from imagewam_ros.core.schema import Floats, JointState, frozen
from imagewam_ros.teleop.clutch import ClutchConfig, MatchClutch
from imagewam_ros.teleop.operator import ChunkMaker, Clutch, Step

SIDES = ("left", "right")


@dataclass(frozen=True)
class LeaderArm:
    """How one leader's joint states become its follower's arm joints, then gripper.

    joint_names: as the leader's driver says them; empty: the robot's own names. position =
    sign * reading + offset_rad for arm joints; gripper_closed and gripper_open are the leader's
    readings that stand for the follower's closed and open, equal values: the reading is the follower's already.
    """

    joint_names: tuple[str, ...] = ()
    signs: tuple[float, ...] = ()
    offsets_rad: tuple[float, ...] = ()
    gripper_closed: float = 0.0
    gripper_open: float = 0.0

    def __post_init__(self) -> None:
        if any(abs(sign) != 1 for sign in self.signs):
            raise ConfigError(f"signs of a leader are 1 or -1, found {list(self.signs)}")


@dataclass(frozen=True)
class LeaderConfig:
    """Which sides have a leader, how each maps, and how the velocity is smoothed."""

    sides: tuple[str, ...] = SIDES
    left: LeaderArm = field(default_factory=LeaderArm)
    right: LeaderArm = field(default_factory=LeaderArm)
    smoothing_s: float = 0.03

    def __post_init__(self) -> None:
        if not self.sides or set(self.sides) - set(SIDES):
            raise ConfigError(f"leader sides must be left, right or both, found {list(self.sides)}")
        if self.smoothing_s <= 0:
            raise ConfigError(f"smoothing_s must be positive, found {self.smoothing_s}")


class LeaderMap:
    """Readings of one leader to positions of its follower."""

    def __init__(self, embodiment: Embodiment, side: str, arm: LeaderArm) -> None:
        """Check the mapping against the robot. Raises ConfigError."""
        self.slice = embodiment.arm_slice(side)
        joints = embodiment.joints[self.slice]
        gripper = next(a.gripper for a in embodiment.arms if a.side == side)
        self.joint_names = arm.joint_names or tuple(joint.name for joint in joints)
        count = len(joints)
        for name, values in (("joint_names", self.joint_names), ("signs", arm.signs), ("offsets_rad", arm.offsets_rad)):
            expected = count if name == "joint_names" else count - 1
            if values and len(values) != expected:
                raise ConfigError(
                    f"{side} leader: {name} has {len(values)} values, robot {embodiment.name!r} needs {expected}"
                )
        scale, offset = np.ones(count), np.zeros(count)
        scale[:-1], offset[:-1] = arm.signs or 1.0, arm.offsets_rad or 0.0
        if arm.gripper_closed != arm.gripper_open:
            scale[-1] = (gripper.opened - gripper.closed) / (arm.gripper_open - arm.gripper_closed)
            offset[-1] = gripper.closed - scale[-1] * arm.gripper_closed
        self._scale, self._offset = frozen(scale), frozen(offset)

    def positions(self, reading: JointState) -> Floats:
        """(arm joints + 1,) of the follower. Raises EmbodimentMismatch for missing joints."""
        missing = [name for name in self.joint_names if name not in reading.joint_names]
        if missing:
            raise EmbodimentMismatch(
                f"leader joint states lack {', '.join(missing)}; found {', '.join(reading.joint_names) or 'none'}"
            )
        order = [reading.joint_names.index(name) for name in self.joint_names]
        return self._scale * reading.position[order] + self._offset


class LeaderOperator:
    """Both hands on leader arms, as an `Operator`. Feed it with `read`, once per leader sample."""

    def __init__(self, embodiment: Embodiment, config: LeaderConfig, clutch: ClutchConfig, chunks: ChunkMaker) -> None:
        self._config, self._chunks, self._stale_s = config, chunks, clutch.stale_s
        self._maps = {side: LeaderMap(embodiment, side, getattr(config, side)) for side in config.sides}
        driven = np.zeros(len(embodiment.joints), dtype=np.bool_)
        for mapping in self._maps.values():
            driven[mapping.slice] = True
        self._clutch = MatchClutch(embodiment, driven, clutch)
        self._limits = embodiment.limits
        self._parts: dict[str, Floats] = {}
        self._stamps_ns: dict[str, int] = {}
        self._velocity = np.zeros(len(embodiment.joints))

    def read(self, side: str, reading: JointState) -> None:
        """Take one sample of one leader. Raises EmbodimentMismatch for missing joints."""
        mapping = self._maps[side]
        position = np.clip(
            mapping.positions(reading), self._limits.lower[mapping.slice], self._limits.upper[mapping.slice]
        )
        elapsed_s = (reading.stamp_ns - self._stamps_ns.get(side, reading.stamp_ns)) / 1e9
        if elapsed_s > 0:
            measured = (position - self._parts[side]) / elapsed_s
            share = -np.expm1(-elapsed_s / self._config.smoothing_s)
            self._velocity[mapping.slice] += share * (measured - self._velocity[mapping.slice])
        self._parts[side], self._stamps_ns[side] = position, reading.stamp_ns

    def arm(self) -> None:
        """Allow engaging once the leaders match."""
        self._clutch.arm()

    def release(self, reason: str) -> None:
        """Let go until armed again."""
        self._clutch.release(reason)

    def step(self, now_ns: int, follower: JointState) -> Step:
        """Send what the leaders do now; an arm without a leader is left alone."""
        follower_age_s = (now_ns - follower.stamp_ns) / 1e9
        if follower_age_s > self._stale_s:
            self._clutch.interrupt(f"joint_states silent for {follower_age_s:.2f} s; is the robot running?")
            return Step(None, self._clutch.state, self._clutch.reason)
        complete = len(self._parts) == len(self._maps)
        target = np.array(follower.position)
        for side, part in self._parts.items():
            target[self._maps[side].slice] = part
        age_ns = now_ns - min(self._stamps_ns.values()) if complete else 0
        self._clutch.update(now_ns, target if complete else None, age_ns, follower.position)
        if self._clutch.state is not Clutch.ENGAGED:
            return Step(None, self._clutch.state, self._clutch.reason)
        return Step(self._chunks.make(now_ns, target, self._velocity, self._config.sides), Clutch.ENGAGED, "")

    def close(self) -> None:
        """Nothing to release: the leaders are topics."""
