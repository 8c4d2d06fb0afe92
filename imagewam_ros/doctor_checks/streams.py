# SPDX-License-Identifier: Apache-2.0
"""Live topics, judged from what was heard for some seconds: rates, ages, jitter, clocks, joints, leaders."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from imagewam_ros.core.embodiment import Camera, Embodiment
from imagewam_ros.core.errors import unknown_name
from imagewam_ros.core.schema import Floats, Image
from imagewam_ros.doctor_checks.finding import Finding, failed, passed, skipped, warned

MS = 1e6
OLD_MS, VERY_OLD_MS = 100.0, 250.0
AHEAD_MS = 5.0
"""A stamp further ahead of the arrival than this was made by a clock that is ahead of ours."""
MATCH_RAD = 0.1
SILENT_S = 0.2
"""Joint states rarer than this are a fault of the executor (control.joint_state_timeout_s), grippers included."""
TRACKED_S = 0.05
"""The executor looks this far back to tell whether an arm follows (control.tracking_delay_s)."""
FEEDBACK = {"arms": ("joint_states", TRACKED_S), "grippers": ("gripper states", SILENT_S / 2)}
"""Parts of the joint states: the check's name, and the longest silence in s that disappoints nobody."""


@dataclass(frozen=True)
class Stream:
    """Messages of one topic: arrivals and stamps (n,) in ns of the node's clock, and the last frame_id."""

    topic: str
    arrivals_ns: NDArray[np.int64]
    stamps_ns: NDArray[np.int64]
    frame: str = ""


@dataclass(frozen=True)
class Joints:
    """Joint states heard: names as they came, positions (n, names) in rad and m."""

    stream: Stream
    names: tuple[str, ...]
    positions: Floats


@dataclass(frozen=True)
class Heard:
    """Everything that was heard in `seconds`. Cameras by name, leaders by side; silent ones are absent.

    images: per camera, (stamps, pictures) thinned out. joints: all joints, each state as old as its oldest one.
    feedback: joint states by the keys of FEEDBACK, since grippers may speak more rarely than arms.
    commanders: publishers per command topic. complaints: messages that could not be read, and why.
    """

    seconds: float
    topics: tuple[str, ...] = ()
    cameras: Mapping[str, Stream] = field(default_factory=dict)
    images: Mapping[str, tuple[NDArray[np.int64], Sequence[Image]]] = field(default_factory=dict)
    joints: Joints | None = None
    feedback: Mapping[str, Stream] = field(default_factory=dict)
    leaders: Mapping[str, Joints] = field(default_factory=dict)
    commanders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    complaints: tuple[str, ...] = ()

    @property
    def anything(self) -> bool:
        """Whether any part of a cell was heard."""
        return bool(self.cameras) or self.joints is not None


def check_streams(heard: Heard, robot: Embodiment) -> Iterator[Finding]:
    """Judge cameras, joint states, leaders and commanders."""
    for complaint in heard.complaints:
        yield failed("messages", complaint, "make the driver and the robot YAML agree")
    for camera in robot.cameras:
        yield from _check_camera(heard, camera)
    yield from check_skew(heard, robot)
    yield from check_joints(heard, robot)
    yield from check_leaders(heard, robot)
    for topic, publishers in heard.commanders.items():
        if len(publishers) > 1:
            found = f"{topic} has {len(publishers)} publishers: {', '.join(publishers)}"
            yield failed("one commander", found, "stop all but one; they would fight over the arms")
    if heard.commanders and all(len(publishers) < 2 for publishers in heard.commanders.values()):
        yield passed("one commander", "no command topic has two publishers")


def _check_camera(heard: Heard, camera: Camera) -> Iterator[Finding]:
    check = f"camera {camera.name}"
    stream = heard.cameras.get(camera.name)
    if stream is None:
        images = [topic for topic in heard.topics if "image" in topic]
        hint = "it is published" if camera.topic in images else unknown_name("topic", camera.topic, images)
        yield failed(check, f"silent for {heard.seconds:.0f} s; {hint}", "start the driver, or remap its topic")
        return
    if stream.frame != camera.frame:
        yield failed(
            check,
            f"{camera.topic} comes from frame {stream.frame!r}, the robot YAML says {camera.frame!r}",
            "are two cameras swapped? check serial numbers and camera_name of the drivers",
        )
    yield from check_timing(check, stream, camera.rate_hz)


def check_timing(check: str, stream: Stream, rate_hz: float) -> Iterator[Finding]:
    """Judge order, rate, jitter, age and clock of one stream against its nominal rate."""
    if stream.stamps_ns.size < 3:
        yield failed(
            check, f"only {stream.stamps_ns.size} messages", "is the driver stuck? listen longer with --seconds"
        )
        return
    steps = np.diff(stream.stamps_ns)
    if (steps <= 0).any():
        count = int((steps <= 0).sum())
        yield failed(
            check,
            f"{count} of {steps.size} stamps do not grow",
            "two publishers on one topic, or a driver that stamps wrongly?",
        )
        return
    period_ms = 1e3 / rate_hz
    measured_hz = 1e9 / float(np.mean(steps))
    jitter_ms = float(np.quantile(np.abs(steps / MS - np.median(steps) / MS), 0.95))
    ages_ms = (stream.arrivals_ns - stream.stamps_ns) / MS
    age_ms = float(np.median(ages_ms))
    found = f"{measured_hz:.1f} Hz of {rate_hz:g}, age {age_ms:.0f} ms, jitter {jitter_ms:.1f} ms"
    if age_ms < -AHEAD_MS:
        yield failed(
            check,
            f"{found}: its clock is {-age_ms:.0f} ms ahead of this computer's",
            "synchronise the clocks with chrony",
        )
    elif age_ms > VERY_OLD_MS:
        yield failed(
            check,
            found,
            "too old to act on: lower resolution or rate, use compressed images, check use_sim_time and clocks",
        )
    elif measured_hz < 0.5 * rate_hz:
        yield failed(check, found, "check USB bandwidth, exposure time and the driver's profile")
    elif age_ms > OLD_MS or measured_hz < 0.9 * rate_hz or jitter_ms > 0.5 * period_ms:
        yield warned(check, found, "check CPU load, USB bandwidth and exposure time")
    else:
        yield passed(check, found)


def check_skew(heard: Heard, robot: Embodiment) -> Iterator[Finding]:
    """Judge how far apart the shutters of the cameras are."""
    streams = [heard.cameras[c.name] for c in robot.cameras if c.name in heard.cameras]
    if len(streams) < 2 or min(stream.stamps_ns.size for stream in streams) < 3:
        return
    first = streams[0].stamps_ns
    worst_ms = 0.0
    for stream in streams[1:]:
        nearest = np.abs(first[:, None] - stream.stamps_ns[None, :]).min(axis=1)
        worst_ms = max(worst_ms, float(np.median(nearest)) / MS)
    limit_ms = 0.6e3 / min(camera.rate_hz for camera in robot.cameras)
    found = f"shutters are {worst_ms:.1f} ms apart (median)"
    if worst_ms > limit_ms:
        yield failed(
            "camera skew", found, "more than half a period: the cameras' clocks differ; check their time domain"
        )
    else:
        yield passed("camera skew", found)


def check_joints(heard: Heard, robot: Embodiment) -> Iterator[Finding]:
    """Judge names, bounds, units and timing of joint_states."""
    joints = heard.joints
    if joints is None:
        yield failed(
            "joint_states", f"silent for {heard.seconds:.0f} s", "start the robot's driver and joint_state_broadcaster"
        )
        return
    missing = [name for name in robot.joint_names if name not in joints.names]
    if missing:
        hint = unknown_name("joint", missing[0], joints.names)
        yield failed(
            "joint_states", f"lacks {', '.join(missing)}; {hint}", "make the driver's names and the YAML's equal"
        )
        return
    order = [joints.names.index(name) for name in robot.joint_names]
    position, limits = joints.positions[-1, order], robot.limits
    over = np.maximum(limits.lower - position, position - limits.upper) / (limits.upper - limits.lower)
    worst = int(over.argmax())
    if over[worst] > 0.02:
        hint = "; is it in degrees?" if over[worst] > 3 else ""
        bounds = f"bounds {limits.lower[worst]:g} to {limits.upper[worst]:g}"
        found = f"{robot.joint_names[worst]} is at {position[worst]:.3f}, {bounds}{hint}"
        yield failed("joint_states", found, "check units, zero position and limits; swapped joints look like this too")
    for part, stream in heard.feedback.items():
        yield from check_feedback(*FEEDBACK[part], stream)


def check_feedback(check: str, wanted_s: float, stream: Stream) -> Iterator[Finding]:
    """Judge age, clock and silences of joint states by what the executor needs, whatever the control rate is."""
    if stream.stamps_ns.size < 3:
        remedy = "does each driver go on publishing? listen longer with --seconds"
        yield failed(check, f"only {stream.stamps_ns.size} complete states", remedy)
        return
    steps_s = np.diff(stream.stamps_ns) / 1e9
    age_ms = float(np.median(stream.arrivals_ns - stream.stamps_ns)) / MS
    silent_s = float(steps_s.max())
    found = f"{1 / steps_s.mean():.1f} Hz, age {age_ms:.0f} ms, silent for {silent_s * 1e3:.0f} ms at most"
    faster = "raise the rate at which the driver or its joint_state_broadcaster publishes, or relieve its computer"
    if age_ms < -AHEAD_MS:
        yield failed(check, f"{found}: its clock is ahead of this computer's", "synchronise the clocks with chrony")
    elif age_ms > VERY_OLD_MS:
        yield failed(check, found, "too old to act on: check use_sim_time, clocks and the network to the driver")
    elif silent_s > SILENT_S:
        limit = f"the executor calls {SILENT_S:g} s a fault (control.joint_state_timeout_s)"
        yield failed(check, found, f"{limit}; {faster}")
    elif silent_s > wanted_s or age_ms > OLD_MS:
        yield warned(check, found, f"{wanted_s * 1e3:.0f} ms at most would be well; {faster}")
    else:
        yield passed(check, found)


def check_leaders(heard: Heard, robot: Embodiment) -> Iterator[Finding]:
    """Judge how far leader arms with the robot's joint names are from their followers."""
    if not heard.leaders or heard.joints is None:
        yield skipped("leader offset", "no leader arms heard")
        return
    for side, leader in heard.leaders.items():
        names = [joint.name for joint in robot.joints[robot.arm_slice(side)][:-1]]
        shared = [name for name in names if name in leader.names and name in heard.joints.names]
        if not shared:
            yield skipped(
                f"{side} leader",
                f"its joints are called {', '.join(leader.names[:3])} ...",
                "teleop_node maps and checks them",
            )
            continue
        mine = np.array([heard.joints.positions[-1, heard.joints.names.index(name)] for name in shared])
        theirs = np.array([leader.positions[-1, leader.names.index(name)] for name in shared])
        worst = int(np.abs(mine - theirs).argmax())
        found = f"{shared[worst]} is {abs(mine - theirs)[worst]:.3f} rad from its follower"
        if abs(mine - theirs)[worst] > MATCH_RAD:
            yield warned(f"{side} leader", found, "move the leader to the follower; teleop engages when they match")
        else:
            yield passed(f"{side} leader", found)
