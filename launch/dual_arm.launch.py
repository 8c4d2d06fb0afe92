# SPDX-License-Identifier: Apache-2.0
"""Start a cell: ros2 launch imagewam_ros dual_arm.launch.py robot:=sim_cell policy:=tiny.

The arguments and the nodes are those of imagewam_ros/graph.py, which `imagewam up` starts too.
`ros2 launch imagewam_ros dual_arm.launch.py --show-args` explains every argument.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, Shutdown
from launch.conditions import IfCondition
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, PythonExpression
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from imagewam_ros.core.paths import PACKAGE
from imagewam_ros.graph import ARGUMENTS, PROCESSES, Argument, Death, Process, Ref, Value, profile_variable

TYPES = {argument.name: type(argument.default) for argument in ARGUMENTS}


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*map(declare, ARGUMENTS), *map(node, PROCESSES)])


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


def value(of: Value | tuple[str, ...] | Ref) -> object:
    if isinstance(of, Ref):
        return ParameterValue(LaunchConfiguration(of.argument), value_type=TYPES[of.argument])
    return list(of) if isinstance(of, tuple) else of


def condition(process: Process) -> IfCondition | None:
    if not process.when:
        return None
    words: list[object] = ["True"]
    for name, wanted in process.when.items():
        words += [f" and '{wanted}' == '", LaunchConfiguration(name), "'"]
    return IfCondition(PythonExpression(words))


def consequence(process: Process, event: ProcessExited) -> list[Shutdown]:
    done = process.death is Death.FAILURE_ENDS_GRAPH and event.returncode == 0
    return [] if done or process.death is Death.ARMS_HOLD else [Shutdown(reason=f"{process.name} ended")]
