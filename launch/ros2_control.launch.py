# SPDX-License-Identifier: Apache-2.0
"""Arms that ros2_control moves, for the cell of dual_arm.launch.py, which includes this file.

hardware:=mock runs mock_components, whose arms do exactly what they are told; no images come from it.
hardware:=gazebo runs gazebo/cell_world.sdf in Gazebo Harmonic or newer with gz_ros2_control, cameras and /clock.
hardware:=real runs the driver that the robot's description names; grippers that are no joints of it have drivers of
their own.
"""

import os
import signal
from pathlib import Path
from xml.etree import ElementTree

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    AppendEnvironmentVariable,
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteLocal,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
)
from launch.event_handlers import OnProcessExit
from launch.events import matches_action
from launch.events.process import SignalProcess
from launch.launch_description_entity import LaunchDescriptionEntity
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare
from launch_ros.utilities import make_namespace_absolute, prefix_namespace

from imagewam_ros.core.config import read_yaml
from imagewam_ros.core.embodiment import Embodiment, load_embodiment
from imagewam_ros.core.errors import ConfigError, GraphError
from imagewam_ros.core.paths import ros_prefixes, share_dir
from imagewam_ros.kinematics.description import describe
from imagewam_ros.packages import OTHERS, require_packages

ARM_CONTROLLERS = {"forward": "forward_position_controller", "trajectory": "joint_trajectory_controller"}
"""The controllers that each output of the executor speaks to."""

LAST_S = 10.0
"""How long the controllers outlive Ctrl-C at most; the executor's end, with the arms at rest, ends them before."""


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument("hardware", choices=list(OTHERS), description="what moves"),
            DeclareLaunchArgument("robot", default_value="sim_cell", description="robot: a name in config/robots"),
            DeclareLaunchArgument("namespace", default_value="", description="namespace of the cell; not with gazebo"),
            DeclareLaunchArgument("use_sim_time", default_value="false", description="take the time from /clock"),
            DeclareLaunchArgument(
                "output", default_value="forward", choices=list(ARM_CONTROLLERS), description="the executor's output"
            ),
            OpaqueFunction(function=start),
        ]
    )


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """What runs for these arguments. Raises GraphError when packages are missing."""
    names = ("hardware", "robot", "namespace", "output")
    chosen = {name: LaunchConfiguration(name).perform(context) for name in names}
    hardware, gazebo = chosen["hardware"], chosen["hardware"] == "gazebo"
    require_packages(dict.fromkeys(OTHERS[hardware], f"sim:={hardware}"))
    if chosen["output"] == "trajectory":
        require_packages({"joint_trajectory_controller": "output: trajectory of the executor"})
    if gazebo and chosen["namespace"]:
        raise GraphError("sim:=gazebo takes no namespace: Gazebo's controller manager has none; leave it out")
    robot = load_embodiment(chosen["robot"])
    controllers = controllers_of(chosen["robot"], robot.name)
    urdf = describe(robot, {"hardware": hardware, "controllers": str(controllers)})
    require_driver(robot.name, urdf)
    require_keys(controllers, context)
    publisher = node(
        "robot_state_publisher",
        "robot_state_publisher",
        parameters=[
            {"robot_description": ParameterValue(urdf, value_type=str)},
            {"use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)},
        ],
    )
    words = [*started(robot, urdf, chosen["output"]), "-c", "controller_manager"]
    spawner = node("controller_manager", "spawner", arguments=words)
    return [publisher, *(simulator() if gazebo else manager(str(controllers))), spawner]


def require_driver(name: str, urdf: str) -> None:
    """Raise GraphError when ros2_control would find no hardware in the description."""
    controls = ElementTree.fromstring(urdf).findall("ros2_control")
    if not controls:
        raise GraphError(
            f"the description of {name} leaves real arms to their own drivers; start those and give sim:=none"
        )
    if not all((control.findtext("hardware/plugin") or "").strip() for control in controls):
        raise GraphError(
            f"the description of {name} names no driver for real arms; write its ros2_control plugin into "
            "the xacro file, or start the drivers yourself and give sim:=none"
        )


def require_keys(controllers: Path, context: LaunchContext) -> None:
    """Raise ConfigError for names in a file of controllers that ROS would pass over in silence in a namespace."""
    base, chosen = context.launch_configurations.get("ros_namespace"), LaunchConfiguration("namespace").perform(context)
    home = (make_namespace_absolute(prefix_namespace(base, chosen)) or "").strip("/")
    deaf = [key for key in read_yaml(controllers) if not key.startswith(("/**", f"/{home}/"))]
    if home and deaf:
        raise ConfigError(
            f"{controllers}: {', '.join(deaf)} would reach nobody in namespace /{home}; write "
            f"/**/{deaf[0].strip('/')}, as config/controllers/sim_cell.yaml does"
        )


def started(robot: Embodiment, urdf: str, output: str) -> list[str]:
    """Controllers of what the description gives to ros2_control; `output` says which of the arms."""
    joints = {joint.get("name") for joint in ElementTree.fromstring(urdf).findall("ros2_control/joint")}
    names = ["joint_state_broadcaster"]
    for arm in robot.arms:
        names.append(f"{arm.side}_{ARM_CONTROLLERS[output]}")
        names += [f"{arm.side}_gripper_controller"] if arm.gripper.name in joints else []
    return names


def controllers_of(robot: str, name: str) -> Path:
    """The file of a robot's controllers: the package's, or NAME_controllers.yaml beside the robot's own YAML."""
    own = Path(robot).suffix in (".yaml", ".yml")
    folder = Path(robot).resolve().parent if own else share_dir() / "config" / "controllers"
    path = folder / (f"{name}_controllers.yaml" if own else f"{name}.yaml")
    if not path.is_file():
        raise ConfigError(f"no controllers of robot {name}: {path} is missing; copy config/controllers/sim_cell.yaml")
    return path


def manager(controllers: str) -> list[LaunchDescriptionEntity]:
    """The controller manager of mock or real arms, which takes the description from its topic."""
    programs = node(
        "controller_manager",
        "ros2_control_node",
        parameters=[controllers],
        remappings=[("~/robot_description", "robot_description")],
        prefix="setsid",  # Ctrl-C in a terminal reaches its whole session at once
        sigterm_timeout=str(LAST_S),
        on_exit=Shutdown(reason="controller_manager ended"),
    )
    end = EmitEvent(event=SignalProcess(signal_number=signal.SIGINT, process_matcher=matches_action(programs)))
    return [programs, RegisterEventHandler(OnProcessExit(target_action=is_executor, on_exit=[end]))]


def is_executor(action: ExecuteLocal) -> bool:
    """Whether it is the process that brings the arms to rest, which the controllers outlive."""
    return isinstance(action, Node) and action.node_executable == "executor_node"


def simulator() -> list[LaunchDescriptionEntity]:
    """Gazebo with the world, the arms in it, and the bridge to ROS."""
    folder = share_dir() / "gazebo"
    shares = os.pathsep.join(str(prefix / "share") for prefix in ros_prefixes())
    return [
        AppendEnvironmentVariable("GZ_SIM_RESOURCE_PATH", shares),  # where package:// leads to a vendor's meshes
        IncludeLaunchDescription(
            [FindPackageShare("ros_gz_sim"), "/launch/gz_sim.launch.py"],
            launch_arguments=[("gz_args", f"-r {folder / 'cell_world.sdf'}"), ("on_exit_shutdown", "true")],
        ),
        node("ros_gz_sim", "create", arguments=["-topic", "robot_description", "-name", "cell"]),
        node("ros_gz_bridge", "parameter_bridge", parameters=[{"config_file": str(folder / "bridge.yaml")}]),
    ]


def node(package: str, executable: str, **others: object) -> Node:
    return Node(
        package=package,
        executable=executable,
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        **others,
    )
