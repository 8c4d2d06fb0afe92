# SPDX-License-Identifier: Apache-2.0
"""Start a cell: ros2 launch imagewam_ros dual_arm.launch.py robot:=sim_cell policy:=tiny.

The arguments and the nodes are those of imagewam_ros/graph.py, which `imagewam up` starts too.
`ros2 launch imagewam_ros dual_arm.launch.py --show-args` explains every argument. sim:=mock and sim:=gazebo
also start ros2_control.launch.py.
"""

from typing import List  # noqa: UP035  launch on Humble does not know list[str]

from launch import LaunchDescription, Substitution
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, SetEnvironmentVariable, Shutdown
from launch.conditions import IfCondition
from launch.events.process import ProcessExited
from launch.substitutions import (
    EnvironmentVariable,
    LaunchConfiguration,
    PathJoinSubstitution,
    PythonExpression,
)
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from imagewam_ros.core.paths import PACKAGE
from imagewam_ros.graph import (
    ARGUMENTS,
    OTHERS,
    PROCESSES,
    Argument,
    Managed,
    Parameter,
    Process,
    Ref,
    one_of,
    profile_variable,
)

RANGE = "ROS_AUTOMATIC_DISCOVERY_RANGE"
TYPES = {argument.name: type(argument.default) for argument in ARGUMENTS}


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [*map(declare, ARGUMENTS), stay_local(), *map(others, OTHERS), *map(node, PROCESSES)],
    )


def stay_local() -> SetEnvironmentVariable:
    """Loopback unless the site chose otherwise, as under `imagewam up`."""
    chosen = EnvironmentVariable(RANGE, default_value="LOCALHOST")
    free = PythonExpression(["not '", EnvironmentVariable("ROS_LOCALHOST_ONLY", default_value=""), "'"])
    return SetEnvironmentVariable(RANGE, chosen, condition=IfCondition(free))


def declare(argument: Argument) -> DeclareLaunchArgument:
    choices = argument.choices or (("true", "false") if isinstance(argument.default, bool) else None)
    default = str(argument.default).lower() if isinstance(argument.default, bool) else str(argument.default)
    return DeclareLaunchArgument(
        argument.name, default_value=default, description=argument.description, choices=choices and list(choices)
    )


def node(process: Process) -> Node:
    profile = PathJoinSubstitution([FindPackageShare(PACKAGE), "fastdds", "shm8.xml"])
    return Node(
        package=PACKAGE,
        executable=process.executable,
        name=process.name,
        namespace=LaunchConfiguration("namespace"),
        parameters=[{"use_sim_time": value(Ref("use_sim_time"))}, {k: value(v) for k, v in process.parameters.items()}],
        remappings=list(process.remappings),
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
        additional_env={profile_variable(): profile} if process.publishes_images else None,
        condition=condition(process),
        on_exit=lambda event, _context: consequence(process, event),
        output="screen",
    )


def others(sim: str) -> IncludeLaunchDescription:
    """Programs of other packages that a value of sim needs."""
    passed = ("robot", "namespace", "use_sim_time")
    return IncludeLaunchDescription(
        PathJoinSubstitution([FindPackageShare(PACKAGE), "launch", "ros2_control.launch.py"]),
        launch_arguments=[("hardware", sim), *((name, LaunchConfiguration(name)) for name in passed)],
        condition=IfCondition(PythonExpression(["'", LaunchConfiguration("sim"), f"' == '{sim}'"])),
    )


def value(of: Parameter) -> object:
    if isinstance(of, Ref):
        return ParameterValue(LaunchConfiguration(of.argument), value_type=TYPES[of.argument])
    if isinstance(of, Managed):
        words: list[object] = ["[name for name, runs in ("]
        for process in PROCESSES:
            if not process.deactivates:
                words += [f"('{process.name}', ", *running(process), "), "]
        return ParameterValue(PythonExpression([*words, ") if runs]"]), value_type=List[str])  # noqa: UP006
    return list(of) if isinstance(of, tuple) else of


def condition(process: Process) -> IfCondition | None:
    return IfCondition(PythonExpression(running(process))) if process.when or process.unless else None


def running(process: Process) -> list[str | Substitution]:
    """Python that says whether a process runs."""
    words: list[str | Substitution] = ["True"]
    for name, wanted in process.when.items():
        texts = tuple(str(w).lower() if isinstance(w, bool) else str(w) for w in one_of(wanted))
        lower = ".lower()" if isinstance(one_of(wanted)[0], bool) else ""
        words += [" and '", LaunchConfiguration(name), f"'{lower} in {texts!r}"]
    for name, unwanted in process.unless.items():
        words += [" and '", LaunchConfiguration(name), f"' != '{unwanted}'"]
    return words


def consequence(process: Process, event: ProcessExited) -> list[Shutdown]:
    return [Shutdown(reason=f"{process.name} ended")] if process.death.ends_graph(event.returncode) else []
