# SPDX-License-Identifier: Apache-2.0
"""The robot as the package sees it: arms, joints with their limits, cameras. One YAML each.

The policy vector is left arm, left gripper, right arm, right gripper, in the YAML's order.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from imagewam_ros.core.config import build, read_yaml
from imagewam_ros.core.errors import ConfigError, unknown_name
from imagewam_ros.core.paths import share_dir
from imagewam_ros.core.schema import Floats, frozen

UNITS = ("rad", "m")

GRIPPERS = ("commands", "percent", "gripper_command", "parallel_gripper_command")
"""Ways to a gripper: its controller's topic in its unit or in per cent open, or one of two actions of control_msgs."""

BOUNDS = ("upper", "lower")


@dataclass(frozen=True)
class Joint:
    """One commanded joint: bounds in rad or m, rates per s, s^2 and s^3."""

    name: str
    lower: float
    upper: float
    velocity: float
    acceleration: float
    jerk: float
    unit: str = "rad"

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ConfigError(unknown_name("unit", self.unit, UNITS))
        if not self.lower < self.upper:
            raise ConfigError(f"joint {self.name!r}: lower {self.lower} is not below upper {self.upper}")
        for rate in ("velocity", "acceleration", "jerk"):
            if not getattr(self, rate) > 0:
                raise ConfigError(f"joint {self.name!r}: {rate} must be positive, found {getattr(self, rate)}")


@dataclass(frozen=True)
class Gripper(Joint):
    """A commanded gripper. open is the bound at which it is open, upper or lower; not said, it is the upper one."""

    open: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.open not in (None, *BOUNDS):
            raise ConfigError(f"gripper {self.name!r}: {unknown_name('open', str(self.open), BOUNDS)}")

    @property
    def opened(self) -> float:
        """Position at which it is open, in its unit."""
        return self.lower if self.open == "lower" else self.upper

    @property
    def closed(self) -> float:
        """Position at which it is closed, in its unit."""
        return self.upper if self.open == "lower" else self.lower


@dataclass(frozen=True)
class Arm:
    """One arm: its revolute joints from base to wrist, its gripper, the frame of its tool."""

    side: str
    joints: tuple[Joint, ...]
    gripper: Gripper
    tool_frame: str

    @property
    def members(self) -> tuple[Joint, ...]:
        """Joints then gripper, the arm's part of the policy vector."""
        return (*self.joints, self.gripper)


@dataclass(frozen=True)
class Camera:
    """One camera: pixels, nominal rate in Hz, image topic and optical frame.

    latency_s is how much later than the shutter its stamps are; 0 where the driver stamps the shutter.
    """

    name: str
    topic: str
    frame: str
    width: int
    height: int
    rate_hz: float
    latency_s: float = 0.0

    @property
    def latency_ns(self) -> int:
        """What to take off a stamp to get the time of the shutter."""
        return round(self.latency_s * 1e9)


@dataclass(frozen=True)
class Limits:
    """Bounds of all commanded joints, each (joints,): rad or m, and per s, s^2, s^3."""

    lower: Floats
    upper: Floats
    velocity: Floats
    acceleration: Floats
    jerk: Floats


@dataclass(frozen=True)
class Embodiment:
    """A dual-arm robot with its cameras. Raises ConfigError when it contradicts itself.

    urdf names its description in the package's urdf/ folder; grippers is one of `GRIPPERS`.
    """

    name: str
    description: str
    control_rate_hz: float
    arms: tuple[Arm, ...]
    cameras: tuple[Camera, ...]
    urdf: str = "dual_arm.urdf.xacro"
    grippers: str = "commands"

    def __post_init__(self) -> None:
        if [arm.side for arm in self.arms] != ["left", "right"]:
            raise ConfigError(f"arms must be left then right, found {[arm.side for arm in self.arms]}")
        if self.grippers not in GRIPPERS:
            raise ConfigError(unknown_name("grippers", self.grippers, GRIPPERS))
        if not 50 <= self.control_rate_hz <= 1000:
            raise ConfigError(f"control_rate_hz must be 50 to 1000, found {self.control_rate_hz}")
        for kind, names in (("joint", self.joint_names), ("camera", self.camera_names)):
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                raise ConfigError(f"{kind} named twice: {', '.join(twice)}")

    @cached_property
    def joints(self) -> tuple[Joint, ...]:
        """All commanded joints in the policy vector's order."""
        return tuple(joint for arm in self.arms for joint in arm.members)

    @cached_property
    def joint_names(self) -> tuple[str, ...]:
        """Names in the policy vector's order."""
        return tuple(joint.name for joint in self.joints)

    @cached_property
    def camera_names(self) -> tuple[str, ...]:
        """Names in the YAML's order."""
        return tuple(camera.name for camera in self.cameras)

    @cached_property
    def limits(self) -> Limits:
        """Limits in the policy vector's order."""
        fields = ("lower", "upper", "velocity", "acceleration", "jerk")
        return Limits(*(frozen([getattr(joint, f) for joint in self.joints]) for f in fields))

    @cached_property
    def period_ns(self) -> int:
        """Control period in ns."""
        return round(1e9 / self.control_rate_hz)

    def arm_slice(self, side: str) -> slice:
        """Part of the policy vector that belongs to `side`, gripper last. Raises ConfigError."""
        start = 0
        for arm in self.arms:
            stop = start + len(arm.members)
            if arm.side == side:
                return slice(start, stop)
            start = stop
        raise ConfigError(unknown_name("arm", side, (arm.side for arm in self.arms)))

    @cached_property
    def gripper_mask(self) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
        """(joints,) True at the grippers."""
        return np.array([joint is arm.gripper for arm in self.arms for joint in arm.members])

    def camera(self, name: str) -> Camera:
        """Return the camera called `name`. Raises ConfigError with the nearest match."""
        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise ConfigError(unknown_name("camera", name, self.camera_names))


def load_embodiment(name: str) -> Embodiment:
    """Load a robot by name (config/robots/NAME.yaml) or by path to a YAML. Raises ConfigError."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return build(Embodiment, read_yaml(path), str(path))
    folder = share_dir() / "config" / "robots"
    known = [p.stem for p in folder.glob("*.yaml")]
    if name not in known:
        raise ConfigError(unknown_name("robot", name, known))
    path = folder / f"{name}.yaml"
    return build(Embodiment, read_yaml(path), str(path))
