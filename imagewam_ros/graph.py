# SPDX-License-Identifier: Apache-2.0
"""The running cell as plain data: which processes, with which parameters, and what a death means.

`imagewam up` (supervisor.py) and launch/dual_arm.launch.py both start exactly this. Nothing here
starts anything, and nothing is imported from ROS.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError, unknown_name
from imagewam_ros.core.paths import PACKAGE, share_dir

Value = str | int | float | bool


@dataclass(frozen=True)
class Argument:
    """What a site may choose. The default's type is the argument's type."""

    name: str
    default: Value
    description: str
    choices: tuple[str, ...] = ()

    def parse(self, text: str) -> Value:
        """Read a value as a person types it. Raises ConfigError."""
        if self.choices and text not in self.choices:
            raise ConfigError(unknown_name(f"value of {self.name}", text, self.choices))
        if isinstance(self.default, bool):
            if text.lower() not in ("true", "false"):
                raise ConfigError(f"{self.name} must be true or false, found {text!r}")
            return text.lower() == "true"
        try:
            return type(self.default)(text)
        except ValueError:
            raise ConfigError(f"{self.name} must be a {type(self.default).__name__}, found {text!r}") from None


TELEOP = ("none", "leader", "gamepad", "spacemouse", "keyboard", "expert")

ARGUMENTS = (
    Argument("robot", "sim_cell", "robot: a name in config/robots, or the path of a YAML file"),
    Argument("policy", "tiny", "checkpoint: a name in models, or the path of a directory; none for teleop alone"),
    Argument("instruction", "", "what to do, in plain words; empty waits for policy/set_instruction"),
    Argument("device", "auto", "where the policy runs: auto, cpu, cuda or cuda:N"),
    Argument(
        "sim",
        "mujoco",
        "what moves: mujoco is the simulated cell; mock, gazebo and real start ros2_control, under ros2 launch "
        "alone; none waits for drivers that you start, isaac for isaac/run_cell.py; give use_sim_time:=true with "
        "gazebo and isaac",
        ("mujoco", "none", "mock", "gazebo", "isaac", "real"),
    ),
    Argument("task", "tray_lift", "task of the simulated cell"),
    Argument("seed", 0, "seed of the first simulated scene"),
    Argument("speed", 1.0, "simulated seconds per second"),
    Argument("shadow", False, "the policy moves nothing and is compared with whoever else moves the arms"),
    Argument("cameras", "none", "who publishes the images: none waits for the drivers", ("none", "realsense", "usb")),
    Argument("head_device", "", "head camera: serial number of a RealSense, or path of a USB camera"),
    Argument("left_wrist_device", "", "the same of the left wrist camera"),
    Argument("right_wrist_device", "", "the same of the right wrist camera"),
    Argument("record", False, "offer the services that record episodes"),
    Argument("teleop", "none", "what a human moves the arms with; expert is the simulator's own", TELEOP),
    Argument("takeover", False, "a human's chunks are an intervention in the policy's run"),
    Argument("terminal", "/dev/tty", "terminal that teleop:=keyboard reads; the command tty tells its name"),
    Argument("rviz", False, "show the cell in RViz, where it is installed"),
    Argument("foxglove", False, "serve the cell's topics to Foxglove on port 8765, to this computer alone"),
    Argument("doctor", False, "the executor starts only after `imagewam doctor`'s checks have passed"),
    Argument("autostart", True, "activate all nodes, the executor last; false stops at inactive"),
    Argument("namespace", "", "namespace of the whole cell, for more than one on a network"),
    Argument("use_sim_time", False, "take the time from /clock"),
    Argument(
        "parameters",
        "",
        "YAML file of ROS parameters for what is no argument here, such as the executor's output and control.*; "
        "config/parameters.yaml shows how",
    ),
    Argument("log_level", "info", "least severe message shown", ("debug", "info", "warn", "error", "fatal")),
)


class Ref(NamedTuple):
    """Stands for the value of an argument."""

    argument: str


@dataclass(frozen=True)
class Managed:
    """Stands for the names of all running nodes with a lifecycle, in starting order."""


@dataclass(frozen=True)
class Description:
    """Stands for the robot's URDF."""


@dataclass(frozen=True)
class Share:
    """Stands for the path of a file of this package."""

    path: str


Parameter = Value | tuple[str, ...] | Ref | Managed | Description


class Death(Enum):
    """What the end of a process means for the rest."""

    ENDS_GRAPH = "ends the graph"
    ARMS_HOLD = "leaves the others alive; the executor holds the arms"
    LEAVES_GRAPH = "leaves the others alive"
    FAILURE_ENDS_GRAPH = "ends the graph unless the process was done"

    def ends_graph(self, code: int) -> bool:
        """Say whether the rest must end when the process ends with this exit code."""
        return self is Death.ENDS_GRAPH or (self is Death.FAILURE_ENDS_GRAPH and code != 0)


@dataclass(frozen=True)
class Process:
    """One node in a process of its own.

    A process runs when every argument in `when` has the value given there, or one of those, none in `unless` has
    the value given there, and one of those named in `any_of`, where there are some, is true. Parameters may be plain
    values, lists of strings, or stand for values known later. One that `deactivates` the others is asked to end
    before them, so that the arms come to rest while everything they depend on is there.
    """

    name: str
    executable: str
    death: Death
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    remappings: tuple[tuple[str, str], ...] = ()
    when: Mapping[str, Value | tuple[Value, ...]] = field(default_factory=dict)
    unless: Mapping[str, Value] = field(default_factory=dict)
    any_of: tuple[str, ...] = ()
    publishes_images: bool = False
    deactivates: bool = False
    package: str = PACKAGE
    words: tuple[str | Share, ...] = ()

    @property
    def managed(self) -> bool:
        """Whether the bringup node drives its lifecycle."""
        return self.package == PACKAGE and not self.deactivates


CAMERAS = {"realsense": ("realsense_node", "serial_no"), "usb": ("usb_camera_node", "video_device")}
"""Executable of each kind of camera, and its parameter that says which device."""


def _cameras() -> tuple[Process, ...]:
    """Return one process per camera of a cell and kind of camera."""
    return tuple(
        Process(
            f"{camera}_camera",
            executable,
            Death.ARMS_HOLD,
            {"camera_name": f"{camera}_camera", parameter: Ref(f"{camera}_device")},
            when={"cameras": kind},
            publishes_images=True,
        )
        for kind, (executable, parameter) in CAMERAS.items()
        for camera in ("head", "left_wrist", "right_wrist")
    )


VIEWERS = (
    # The launch file of ros2_control brings its own, and so do drivers.
    Process(
        "robot_state_publisher",
        "robot_state_publisher",
        Death.LEAVES_GRAPH,
        {"robot_description": Description()},
        when={"sim": ("mujoco", "isaac")},
        any_of=("rviz", "foxglove"),
        package="robot_state_publisher",
    ),
    Process(
        "rviz",
        "rviz2",
        Death.LEAVES_GRAPH,
        when={"rviz": True},
        package="rviz2",
        words=("-d", Share("config/rviz/cell.rviz")),
    ),
    Process(
        "foxglove",
        "foxglove_bridge",
        Death.LEAVES_GRAPH,
        # Whoever may connect can look, and neither publish, nor call services, nor set parameters.
        {"address": "127.0.0.1", "port": 8765, "capabilities": ("connectionGraph", "assets")},
        when={"foxglove": True},
        package="foxglove_bridge",
    ),
)
"""Programs of other packages that show the cell."""

PROCESSES = (
    Process(
        "sim",
        "sim_node",
        Death.ENDS_GRAPH,
        {"robot": Ref("robot"), "task": Ref("task"), "seed": Ref("seed"), "speed": Ref("speed")},
        when={"sim": "mujoco"},
        publishes_images=True,
    ),
    *_cameras(),
    Process(
        "policy",
        "policy_node",
        Death.ARMS_HOLD,
        {
            "robot": Ref("robot"),
            "checkpoint": Ref("policy"),
            "device": Ref("device"),
            "instruction": Ref("instruction"),
        },
        unless={"policy": "none"},
    ),
    Process(
        "recorder",
        "recorder_node",
        Death.LEAVES_GRAPH,
        {"robot": Ref("robot"), "instruction": Ref("instruction")},
        when={"record": True},
    ),
    Process(
        "teleop",
        "teleop_node",
        Death.ARMS_HOLD,
        {
            "robot": Ref("robot"),
            "device": Ref("teleop"),
            "takeover": Ref("takeover"),
            "devices.terminal": Ref("terminal"),
        },
        when={"teleop": TELEOP[1:]},
    ),
    Process(
        "doctor",
        "doctor_node",
        Death.LEAVES_GRAPH,
        {"robot": Ref("robot"), "checkpoint": Ref("policy")},
        when={"doctor": True},
    ),
    Process(
        "executor",
        "executor_node",
        Death.ENDS_GRAPH,
        {
            "robot": Ref("robot"),
            "real_time_factor": Ref("speed"),
            "guarded": False,
            "shadow": Ref("shadow"),
            "grippers": "commands",
        },
        when={"sim": "mujoco"},
    ),
    Process(
        "executor",
        "executor_node",
        Death.ENDS_GRAPH,
        # Whatever moves the real grippers, these two give them forward controllers.
        {"robot": Ref("robot"), "shadow": Ref("shadow"), "grippers": "commands"},
        when={"sim": ("mock", "gazebo")},
    ),
    Process(
        "executor",
        "executor_node",
        Death.ENDS_GRAPH,
        {"robot": Ref("robot"), "shadow": Ref("shadow")},
        when={"sim": ("none", "real")},
    ),
    Process(
        "executor",
        "executor_node",
        Death.ENDS_GRAPH,
        {"robot": Ref("robot"), "shadow": Ref("shadow"), "output": "joint_command"},
        when={"sim": "isaac"},
    ),
    *VIEWERS,
    Process(
        "bringup",
        "bringup_node",
        Death.FAILURE_ENDS_GRAPH,
        {"nodes": Managed(), "autostart": Ref("autostart")},
        deactivates=True,
    ),
)
"""Started in this order. The bringup node drives the lifecycles in the order of `nodes`, so the executor is last."""


def settings(chosen: Mapping[str, str]) -> dict[str, Value]:
    """Values of all arguments: what was chosen as text, defaults elsewhere. Raises ConfigError."""
    known = {argument.name: argument for argument in ARGUMENTS}
    for name in chosen:
        if name not in known:
            raise ConfigError(unknown_name("argument", name, known))
    return {name: a.parse(chosen[name]) if name in chosen else a.default for name, a in known.items()}


def running(values: Mapping[str, Value]) -> tuple[Process, ...]:
    """Return the processes that run under these values of the arguments, in starting order."""
    return tuple(
        process
        for process in PROCESSES
        if all(values[name] in one_of(wanted) for name, wanted in process.when.items())
        and all(values[name] != unwanted for name, unwanted in process.unless.items())
        and (not process.any_of or any(values[name] for name in process.any_of))
    )


def one_of(wanted: Value | tuple[Value, ...]) -> tuple[Value, ...]:
    """Values that a condition accepts."""
    return wanted if isinstance(wanted, tuple) else (wanted,)


def parameters(process: Process, values: Mapping[str, Value]) -> dict[str, Value | tuple[str, ...]]:
    """Return a process's ROS parameters with all references resolved."""

    def resolve(parameter: Parameter) -> Value | tuple[str, ...]:
        if isinstance(parameter, Ref):
            return values[parameter.argument]
        if isinstance(parameter, Managed):
            return tuple(p.name for p in running(values) if p.managed)
        return describe(str(values["robot"])) if isinstance(parameter, Description) else parameter

    mine = {name: resolve(parameter) for name, parameter in process.parameters.items()}
    return {"use_sim_time": values["use_sim_time"], **mine}


def describe(robot: str) -> str:
    """URDF of a robot by its name or YAML. Raises ConfigError."""
    from imagewam_ros.kinematics import description  # xacro is slow to import, and most graphs do not need it

    return description.describe(load_embodiment(robot))


def words(process: Process) -> list[str]:
    """Return what stands between a process's executable and its ROS arguments."""
    return [str(share_dir() / word.path) if isinstance(word, Share) else word for word in process.words]
