# SPDX-License-Identifier: Apache-2.0
"""Packages of others that a cell needs, by its arguments; looked for before anything starts."""

from collections.abc import Mapping
from pathlib import Path

from imagewam_ros.core.errors import GraphError
from imagewam_ros.core.paths import PACKAGE, ros_prefixes
from imagewam_ros.graph import Value, running

CONTROL = ("robot_state_publisher", "controller_manager", "joint_state_broadcaster", "forward_command_controller")
OTHERS = {
    "mock": CONTROL,
    "gazebo": (*CONTROL, "gz_ros2_control", "ros_gz_sim", "ros_gz_bridge"),
    "real": CONTROL,
}
"""Values of sim that launch/ros2_control.launch.py starts, with the ROS packages that it takes the parts from."""


def needed_packages(values: Mapping[str, Value]) -> dict[str, str]:
    """Return the packages of others that these values need, each with the choice that needs it."""
    sim = str(values["sim"])
    needed = dict.fromkeys(OTHERS.get(sim, ()), f"sim:={sim}")
    for process in running(values):
        asked = [name for name in ("rviz", "foxglove") if name in (*process.when, *process.any_of) and values[name]]
        if process.package != PACKAGE:
            needed.setdefault(process.package, f"{asked[0]}:=true")
    return needed


def require_packages(needed: Mapping[str, str]) -> None:
    """Raise GraphError naming those of `needed_packages` that are not installed."""
    index = Path("share/ament_index/resource_index/packages")
    missing = [p for p in needed if not any((prefix / index / p).is_file() for prefix in ros_prefixes())]
    if missing:
        reasons = list(dict.fromkeys(needed[package] for package in missing))
        why = f"{' and '.join(reasons)} {'need' if len(reasons) > 1 else 'needs'}"
        places = ", ".join(dict.fromkeys(map(str, ros_prefixes())))
        apt = " ".join(f"ros-$ROS_DISTRO-{package.replace('_', '-')}" for package in missing)
        raise GraphError(
            f"{why} {', '.join(missing)}, not found in {places}; "
            f"where ROS 2 is installed: sudo apt install {apt}, and source it again"
        )


def require_launch(values: Mapping[str, Value]) -> None:
    """Raise GraphError for what `imagewam up` cannot start by itself."""
    if values["sim"] in OTHERS:
        raise GraphError(
            f"sim:={values['sim']} starts programs of other packages, which `imagewam up` does not; use "
            f"`ros2 launch imagewam_ros dual_arm.launch.py sim:={values['sim']}`, or start them and give sim:=none"
        )
    if values["teleop"] == "keyboard" and values["terminal"] == "/dev/tty":
        raise GraphError(
            "teleop:=keyboard needs a terminal for itself; open another, run `tty; sleep infinity` there and give "
            "the name that it prints as terminal:=/dev/pts/N"
        )
