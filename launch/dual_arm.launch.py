# SPDX-License-Identifier: Apache-2.0
"""Start a cell: ros2 launch imagewam_ros dual_arm.launch.py robot:=sim_cell policy:=tiny.

The arguments and the nodes are those of imagewam_ros/graph.py, which `imagewam up` starts too.
`ros2 launch imagewam_ros dual_arm.launch.py --show-args` explains every argument. sim:=mock, gazebo and real
also start ros2_control.launch.py.
"""

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import List  # noqa: UP035  launch on Humble does not know list[str]

from launch import LaunchContext, LaunchDescription, Substitution
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    Shutdown,
)
from launch.conditions import IfCondition
from launch.events.process import ProcessExited
from launch.logging import get_logger
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, PythonExpression
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue
from launch_ros.substitutions import FindPackageShare
from launch_ros.utilities import make_namespace_absolute, prefix_namespace

from imagewam_ros.core.paths import PACKAGE
from imagewam_ros.graph import (
    ARGUMENTS,
    PROCESSES,
    Argument,
    Description,
    Managed,
    Parameter,
    Process,
    Ref,
    Share,
    describe,
    one_of,
    settings,
)
from imagewam_ros.middleware import chosen_environment, profile_variable
from imagewam_ros.packages import OTHERS, needed_packages, require_packages
from imagewam_ros.site_parameters import executor_output, write_site_parameters
from imagewam_ros.supervisor import enclave

SITE, IMAGES = "site_parameters", "image_profile"
"""Configurations that hold where the site's parameters with the nodes' full names are, and images' profile."""

TYPES = {argument.name: type(argument.default) for argument in ARGUMENTS}


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            *map(declare, ARGUMENTS),
            OpaqueFunction(function=prepare),
            OpaqueFunction(function=stay_local),
            *map(others, OTHERS),
            *map(node, PROCESSES),
        ],
    )


def prepare(context: LaunchContext) -> None:
    """Raise what is missing before anything starts; give the site's parameters to whatever namespace the cell is in."""
    chosen = {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in ARGUMENTS}
    for word in misspelt(context.argv):
        get_logger("dual_arm").warning(word)
    require_packages(needed_packages(settings(chosen)))
    folder = tempfile.mkdtemp(prefix="imagewam_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    context.launch_configurations[SITE] = str(write_site_parameters(*site_of(context), Path(folder)))
    context.launch_configurations["output"] = executor_output(*site_of(context))


def misspelt(words: Sequence[str]) -> list[str]:
    """What is nearly an argument of ours, which launch passes over in silence: shdow:=true would move the arms.

    No error, because a launch file that includes this one has arguments of its own.
    """
    names = [argument.name for argument in ARGUMENTS]
    given = [word.partition(":=")[0] for word in words if ":=" in word]
    near = {name: get_close_matches(name, names, n=1, cutoff=0.8) for name in given if name not in names}
    return [f"no argument is called {name!r}; did you mean {found[0]}?" for name, found in near.items() if found]


def site_of(context: LaunchContext) -> tuple[str, str]:
    """Path of the site's file, and the namespace with those that this file is included under."""
    path, chosen = (LaunchConfiguration(name).perform(context) for name in ("parameters", "namespace"))
    base = context.launch_configurations.get("ros_namespace")
    return path, make_namespace_absolute(prefix_namespace(base, chosen)) or ""


def stay_local(context: LaunchContext) -> None:
    """Keep every process on this computer unless the site chose otherwise, as under `imagewam up`."""
    images = {**context.environment, **chosen_environment(context.environment, publishes_images=True)}
    context.launch_configurations[IMAGES] = images[profile_variable()]
    context.environment.update(chosen_environment(context.environment, publishes_images=False))


def declare(argument: Argument) -> DeclareLaunchArgument:
    choices = argument.choices or (("true", "false") if isinstance(argument.default, bool) else None)
    default = str(argument.default).lower() if isinstance(argument.default, bool) else str(argument.default)
    return DeclareLaunchArgument(
        argument.name, default_value=default, description=argument.description, choices=choices and list(choices)
    )


def node(process: Process) -> Node:
    profile, level = LaunchConfiguration(IMAGES), LaunchConfiguration("log_level")
    words = [file(word.path) if isinstance(word, Share) else word for word in process.words]
    return Node(
        package=process.package,
        executable=process.executable,
        name=process.name,
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            {"use_sim_time": value(Ref("use_sim_time"))},
            {k: value(v) for k, v in process.parameters.items()},
            ParameterFile(LaunchConfiguration(SITE), allow_substs=False),
        ],
        remappings=list(process.remappings),
        arguments=[*words, "--ros-args", "--log-level", level, "--enclave", enclave(process.name)],
        additional_env={profile_variable(): profile} if process.publishes_images else None,
        condition=condition(process),
        on_exit=lambda event, _context: consequence(process, event),
        output="screen",
    )


def file(path: str) -> PathJoinSubstitution:
    return PathJoinSubstitution([FindPackageShare(PACKAGE), *path.split("/")])


class Urdf(Substitution):
    """The URDF of the robot that was chosen."""

    def perform(self, context: LaunchContext) -> str:
        """Return it as text."""
        return describe(LaunchConfiguration("robot").perform(context))


def others(sim: str) -> IncludeLaunchDescription:
    """Programs of other packages that a value of sim needs."""
    passed = ("robot", "namespace", "use_sim_time", "output")
    return IncludeLaunchDescription(
        PathJoinSubstitution([FindPackageShare(PACKAGE), "launch", "ros2_control.launch.py"]),
        launch_arguments=[("hardware", sim), *((name, LaunchConfiguration(name)) for name in passed)],
        condition=IfCondition(PythonExpression(["'", LaunchConfiguration("sim"), f"' == '{sim}'"])),
    )


def value(of: Parameter) -> object:
    if isinstance(of, Ref):
        return ParameterValue(LaunchConfiguration(of.argument), value_type=TYPES[of.argument])
    if isinstance(of, Description):
        return ParameterValue(Urdf(), value_type=str)
    if isinstance(of, Managed):
        words: list[object] = ["[name for name, runs in ("]
        for process in PROCESSES:
            if process.managed:
                words += [f"('{process.name}', ", *running(process), "), "]
        return ParameterValue(PythonExpression([*words, ") if runs]"]), value_type=List[str])  # noqa: UP006
    return list(of) if isinstance(of, tuple) else of


def condition(process: Process) -> IfCondition | None:
    free = not (process.when or process.unless or process.any_of)
    return None if free else IfCondition(PythonExpression(running(process)))


def running(process: Process) -> list[str | Substitution]:
    """Python that says whether a process runs."""
    words: list[str | Substitution] = ["True"]
    for name, wanted in process.when.items():
        texts = tuple(str(w).lower() if isinstance(w, bool) else str(w) for w in one_of(wanted))
        lower = ".lower()" if isinstance(one_of(wanted)[0], bool) else ""
        words += [" and '", LaunchConfiguration(name), f"'{lower} in {texts!r}"]
    for name, unwanted in process.unless.items():
        words += [" and '", LaunchConfiguration(name), f"' != '{unwanted}'"]
    if process.any_of:
        alternatives = [["'", LaunchConfiguration(name), "'.lower() == 'true' or "] for name in process.any_of]
        words += [" and (", *(word for words in alternatives for word in words), "False)"]
    return words


def consequence(process: Process, event: ProcessExited) -> list[Shutdown]:
    return [Shutdown(reason=f"{process.name} ended")] if process.death.ends_graph(event.returncode) else []
