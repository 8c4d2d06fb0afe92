# SPDX-License-Identifier: Apache-2.0
"""Arms that ros2_control moves, for the cell of dual_arm.launch.py, which includes this file.

hardware:=mock runs mock_components, whose arms do exactly what they are told; no images come from it.
hardware:=gazebo runs gazebo/cell_world.sdf in Gazebo Harmonic or newer with gz_ros2_control, cameras and /clock.
hardware:=real runs the driver that the robot's description names.
"""

from pathlib import Path
from xml.etree import ElementTree

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction, Shutdown
from launch.launch_description_entity import LaunchDescriptionEntity
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError, GraphError
from imagewam_ros.core.paths import share_dir
from imagewam_ros.kinematics.description import describe
from imagewam_ros.packages import OTHERS, require_packages

CONTROLLERS = (
    "joint_state_broadcaster",
    "left_forward_position_controller",
    "left_gripper_controller",
    "right_forward_position_controller",
    "right_gripper_controller",
)


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument("hardware", choices=list(OTHERS), description="what moves"),
            DeclareLaunchArgument("robot", default_value="sim_cell", description="robot: a name in config/robots"),
            DeclareLaunchArgument("namespace", default_value="", description="namespace of the cell; not with gazebo"),
            DeclareLaunchArgument("use_sim_time", default_value="false", description="take the time from /clock"),
            OpaqueFunction(function=start),
        ]
    )


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """What runs for these arguments. Raises GraphError when packages are missing."""
    chosen = {name: LaunchConfiguration(name).perform(context) for name in ("hardware", "robot", "namespace")}
    hardware, gazebo = chosen["hardware"], chosen["hardware"] == "gazebo"
    require_packages(dict.fromkeys(OTHERS[hardware], f"sim:={hardware}"))
    if gazebo and chosen["namespace"]:
        raise GraphError("sim:=gazebo takes no namespace: Gazebo's controller manager has none; leave it out")
    robot = load_embodiment(chosen["robot"])
    controllers = controllers_of(chosen["robot"], robot.name)
    urdf = describe(robot, {"hardware": hardware, "controllers": str(controllers)})
    require_driver(robot.name, urdf)
    publisher = node(
        "robot_state_publisher",
        "robot_state_publisher",
        parameters=[
            {"robot_description": ParameterValue(urdf, value_type=str)},
            {"use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)},
        ],
    )
    spawner = node("controller_manager", "spawner", arguments=[*CONTROLLERS, "-c", "controller_manager"])
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
    return [
        node(
            "controller_manager",
            "ros2_control_node",
            parameters=[controllers],
            remappings=[("~/robot_description", "robot_description")],
            on_exit=Shutdown(reason="controller_manager ended"),
        )
    ]


def simulator() -> list[LaunchDescriptionEntity]:
    """Gazebo with the world, the arms in it, and the bridge to ROS."""
    folder = share_dir() / "gazebo"
    return [
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
