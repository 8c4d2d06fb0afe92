# SPDX-License-Identifier: Apache-2.0
"""The robot YAML against the robot description: names, order along the arm, limits, frames."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from xml.etree import ElementTree

from imagewam_ros.core.embodiment import Embodiment, Joint
from imagewam_ros.core.errors import ConfigError, unknown_name
from imagewam_ros.doctor_checks.finding import Finding, failed, passed, warned

TOLERANCE = 1e-6
UNITS = {"revolute": "rad", "continuous": "rad", "prismatic": "m"}


class UrdfJoint(NamedTuple):
    """One joint of a URDF; limits in rad or m, and per s, None where the URDF gives none."""

    kind: str
    parent: str
    child: str
    lower: float | None
    upper: float | None
    velocity: float | None


class Urdf(NamedTuple):
    """The part of a URDF that is compared."""

    joints: dict[str, UrdfJoint]
    links: frozenset[str]


def parse(text: str) -> Urdf:
    """Read a URDF. Raises ConfigError."""
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ConfigError(f"the robot description is not XML: {error}; does xacro run through?") from error
    joints = {}
    for joint in root.iter("joint"):
        parent, child, limit = joint.find("parent"), joint.find("child"), joint.find("limit")
        if parent is None or child is None:
            continue  # a joint of a ros2_control or transmission tag
        numbers = [None if limit is None or limit.get(k) is None else float(limit.get(k, "")) for k in LIMITS]
        joints[joint.get("name", "")] = UrdfJoint(
            joint.get("type", ""), parent.get("link", ""), child.get("link", ""), *numbers
        )
    return Urdf(joints, frozenset(link.get("name", "") for link in root.iter("link")))


LIMITS = ("lower", "upper", "velocity")


def check_description(robot: Embodiment, urdf: Urdf) -> Iterator[Finding]:
    """Compare the YAML of `robot` with its URDF."""
    missing = [joint.name for joint in robot.joints if joint.name not in urdf.joints]
    if missing:
        hints = "; ".join(unknown_name("joint", name, urdf.joints) for name in missing[:3])
        yield failed("URDF joints", f"{len(missing)} joints of the YAML are not in the URDF: {hints}", REMEDY)
        return
    yield passed("URDF joints", f"all {len(robot.joints)} joints of {robot.name} are in the URDF")
    yield from _check_order(robot, urdf)
    yield from _check_limits(robot, urdf)
    frames = [*(arm.tool_frame for arm in robot.arms), *(camera.frame for camera in robot.cameras)]
    absent = [unknown_name("frame", frame, urdf.links) for frame in frames if frame not in urdf.links]
    if absent:
        yield warned("URDF frames", "; ".join(absent), "add the links to the URDF or correct the YAML")
    else:
        yield passed("URDF frames", f"{len(frames)} tool and camera frames are links of the URDF")


LAUNCH_WAITS_S = 5.0
"""What ros2 launch leaves a process after Ctrl-C before SIGTERM comes, and then again before SIGKILL."""


def check_stop(longest_s: float) -> Iterator[Finding]:
    """Judge the longest soft stop that the limits of the YAML allow."""
    found = f"the longest soft stop takes {longest_s:.1f} s"
    if longest_s > LAUNCH_WAITS_S:
        yield warned(
            "longest stop",
            f"{found}; the arms go on for so long after a hold, and ros2 launch may kill the executor before they rest",
            "raise acceleration and jerk in the YAML, lower velocity, or start the cell by imagewam up, which waits",
        )
    else:
        yield passed("longest stop", found)


REMEDY = "make config/robots/*.yaml and the URDF agree; the policy vector follows the YAML"


def _check_order(robot: Embodiment, urdf: Urdf) -> Iterator[Finding]:
    for arm in robot.arms:
        names = [joint.name for joint in arm.joints]
        chain = sorted(names, key=lambda name: len(_ancestors(urdf, name)))
        if names != chain:
            swapped = ", ".join(
                f"[{i}] {a} should be {b}" for i, (a, b) in enumerate(zip(names, chain, strict=True)) if a != b
            )
            yield failed("URDF order", f"{arm.side} arm is not listed from base to wrist: {swapped}", REMEDY)
            return
    yield passed("URDF order", "both arms are listed from base to wrist")


def _ancestors(urdf: Urdf, name: str) -> Sequence[str]:
    """Joints between the root and `name`, nearest first."""
    by_child = {joint.child: other for other, joint in urdf.joints.items()}
    found: list[str] = []
    above = by_child.get(urdf.joints[name].parent)
    while above is not None and above not in found:
        found.append(above)
        above = by_child.get(urdf.joints[above].parent)
    return found


def _check_limits(robot: Embodiment, urdf: Urdf) -> Iterator[Finding]:
    wrong = [text for joint in robot.joints for text in _differences(joint, urdf.joints[joint.name])]
    if wrong:
        yield failed("URDF limits", f"{len(wrong)} differ: {'; '.join(wrong[:6])}", REMEDY)
    else:
        stricter = sum(_is_stricter(joint, urdf.joints[joint.name]) for joint in robot.joints)
        equal = "position and velocity limits and units equal the URDF's"
        yield passed("URDF limits", f"limits of {stricter} joints are inside the URDF's" if stricter else equal)


def _differences(joint: Joint, found: UrdfJoint) -> Iterator[str]:
    if UNITS.get(found.kind) != joint.unit:
        yield f"{joint.name} is in {joint.unit}, the URDF says {found.kind}"
    for name in LIMITS:
        mine, theirs = getattr(joint, name), getattr(found, name)
        beyond = theirs is not None and (theirs - mine if name == "lower" else mine - theirs) > TOLERANCE
        if beyond:
            yield f"{joint.name} {name} {mine:g}, URDF {theirs:g}"


def _is_stricter(joint: Joint, found: UrdfJoint) -> bool:
    pairs = ((getattr(joint, name), getattr(found, name)) for name in LIMITS)
    return any(theirs is not None and abs(mine - theirs) > TOLERANCE for mine, theirs in pairs)
