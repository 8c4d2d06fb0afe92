# SPDX-License-Identifier: Apache-2.0
"""The running cell as plain data: which processes, with which parameters, and what a death means.

`imagewam up` (supervisor.py) and launch/dual_arm.launch.py both start exactly this. Nothing here
starts anything, and nothing is imported from ROS.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from imagewam_ros.core.errors import ConfigError, unknown_name
from imagewam_ros.core.paths import ros_prefixes

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


ARGUMENTS = (
    Argument("robot", "sim_cell", "robot: a name in config/robots, or the path of a YAML file"),
    Argument("policy", "tiny", "checkpoint: a name in models, or the path of a directory"),
    Argument("instruction", "", "what to do, in plain words; empty waits for policy/set_instruction"),
    Argument("device", "auto", "where the policy runs: auto, cpu, cuda or cuda:N"),
    Argument("sim", "mujoco", "what stands for the robot; none waits for the robot's own drivers", ("mujoco", "none")),
    Argument("task", "tray_lift", "task of the simulated cell"),
    Argument("seed", 0, "seed of the first simulated scene"),
    Argument("speed", 1.0, "simulated seconds per second"),
    Argument("shadow", False, "the policy moves nothing and is compared with whoever else moves the arms"),
    Argument("autostart", True, "activate all nodes, the executor last; false stops at inactive"),
    Argument("namespace", "", "namespace of the whole cell, for more than one on a network"),
    Argument("use_sim_time", False, "take the time from /clock"),
    Argument("log_level", "info", "least severe message shown", ("debug", "info", "warn", "error", "fatal")),
)


class Ref(NamedTuple):
    """Stands for the value of an argument."""

    argument: str


class Death(Enum):
    """What the end of a process means for the rest."""

    ENDS_GRAPH = "ends the graph"
    ARMS_HOLD = "leaves the others alive; the executor holds the arms"
    FAILURE_ENDS_GRAPH = "ends the graph unless the process was done"


@dataclass(frozen=True)
class Process:
    """One node in a process of its own.

    A process runs when every argument in `when` has the value given there. Parameters may be
    plain values, lists of strings, or `Ref`s to arguments. One that `deactivates` the others is asked
    to end before them, so that the arms come to rest while everything they depend on is there.
    """

    name: str
    executable: str
    death: Death
    parameters: Mapping[str, Value | tuple[str, ...] | Ref] = field(default_factory=dict)
    remappings: tuple[tuple[str, str], ...] = ()
    when: Mapping[str, Value] = field(default_factory=dict)
    publishes_images: bool = False
    deactivates: bool = False


PROCESSES = (
    Process(
        "sim",
        "sim_node",
        Death.ENDS_GRAPH,
        {"robot": Ref("robot"), "task": Ref("task"), "seed": Ref("seed"), "speed": Ref("speed")},
        when={"sim": "mujoco"},
        publishes_images=True,
    ),
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
    ),
    Process(
        "executor",
        "executor_node",
        Death.ENDS_GRAPH,
        {"robot": Ref("robot"), "real_time_factor": Ref("speed"), "guarded": False, "shadow": Ref("shadow")},
        when={"sim": "mujoco"},
    ),
    Process(
        "executor",
        "executor_node",
        Death.ENDS_GRAPH,
        {"robot": Ref("robot"), "shadow": Ref("shadow")},
        when={"sim": "none"},
    ),
    Process(
        "bringup",
        "bringup_node",
        Death.FAILURE_ENDS_GRAPH,
        {"nodes": ("sim", "policy", "executor"), "autostart": Ref("autostart")},
        when={"sim": "mujoco"},
        deactivates=True,
    ),
    Process(
        "bringup",
        "bringup_node",
        Death.FAILURE_ENDS_GRAPH,
        {"nodes": ("policy", "executor"), "autostart": Ref("autostart")},
        when={"sim": "none"},
        deactivates=True,
    ),
)
"""Started in this order. The bringup node drives the lifecycles in the order of `nodes`, so the executor is last."""


def profile_variable() -> str:
    """Name of the variable that makes Fast DDS read fastdds/shm8.xml, for publishers of images.

    Three VGA cameras do not fit into the default 512 KB of shared memory, and two thirds of the frames
    are lost. Fast DDS 3 (Kilted and newer) warns when it is given the variable of Fast DDS 2.
    """
    three = any((prefix / "share" / "fastdds").is_dir() for prefix in ros_prefixes())
    return "FASTDDS_DEFAULT_PROFILES_FILE" if three else "FASTRTPS_DEFAULT_PROFILES_FILE"


def settings(chosen: Mapping[str, str]) -> dict[str, Value]:
    """Values of all arguments: what was chosen as text, defaults elsewhere. Raises ConfigError."""
    known = {argument.name: argument for argument in ARGUMENTS}
    for name in chosen:
        if name not in known:
            raise ConfigError(unknown_name("argument", name, known))
    return {name: a.parse(chosen[name]) if name in chosen else a.default for name, a in known.items()}


def running(values: Mapping[str, Value]) -> tuple[Process, ...]:
    """Return the processes that run under these values of the arguments, in starting order."""
    return tuple(p for p in PROCESSES if all(values[name] == wanted for name, wanted in p.when.items()))


def parameters(process: Process, values: Mapping[str, Value]) -> dict[str, Value | tuple[str, ...]]:
    """Return a process's ROS parameters with all references resolved."""
    mine = {name: values[v.argument] if isinstance(v, Ref) else v for name, v in process.parameters.items()}
    return {"use_sim_time": values["use_sim_time"], **mine}
