# SPDX-License-Identifier: Apache-2.0
"""The launch file starts the graph of graph.py. Where launch is not installed, only its source is read."""

import ast
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError, GraphError
from imagewam_ros.core.paths import share_dir
from imagewam_ros.graph import (
    ARGUMENTS,
    PROCESSES,
    Description,
    Managed,
    parameters,
    running,
    settings,
)
from imagewam_ros.middleware import profile_variable
from imagewam_ros.packages import OTHERS
from imagewam_ros.supervisor import environment

FILE = share_dir() / "launch" / "dual_arm.launch.py"


def calls(name: str) -> list[ast.Call]:
    nodes = ast.walk(ast.parse(FILE.read_text()))
    return [n for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == name]


def test_nodes_and_arguments_come_from_the_graph_alone() -> None:
    assert len(calls("Node")) == len(calls("DeclareLaunchArgument")) == 1
    tables = {ast.unparse(argument) for call in calls("map") for argument in call.args}
    assert tables == {"declare", "ARGUMENTS", "others", "OTHERS", "node", "PROCESSES"}
    assert {ast.unparse(k.value) for call in calls("Node") for k in call.keywords if k.arg == "package"} == {
        "process.package"
    }


@pytest.fixture
def described() -> tuple[Any, Any]:
    """Context and entities of the real launch system."""
    launch = pytest.importorskip("launch")
    pytest.importorskip("launch_ros")
    context = launch.LaunchContext()
    description = runpy.run_path(str(FILE))["generate_launch_description"]()
    return context, description.entities


def test_every_argument_is_described_and_has_the_default_of_the_graph(described: tuple[Any, Any]) -> None:
    _, entities = described
    declared = {e.name: e for e in entities if type(e).__name__ == "DeclareLaunchArgument"}
    assert list(declared) == [argument.name for argument in ARGUMENTS]
    assert all(e.description for e in declared.values())


@pytest.mark.parametrize(
    "chosen",
    [
        {"sim": "mujoco"},
        {"sim": "none"},
        {"sim": "mock", "policy": "none"},
        {"sim": "real", "foxglove": "true"},
        {"sim": "mujoco", "rviz": "true"},
        {"sim": "none", "cameras": "usb", "record": "true", "teleop": "gamepad", "doctor": "true"},
    ],
    ids=str,
)
def test_the_same_processes_run_as_under_up(described: tuple[Any, Any], chosen: dict[str, str]) -> None:
    context, entities = described
    for argument in ARGUMENTS:
        context.launch_configurations[argument.name] = str(argument.default).lower()
    context.launch_configurations.update(chosen)
    runs = [e for e in entities if e.condition is None or e.condition.evaluate(context)]
    values = settings(chosen)
    processes = running(values)
    started = [e.node_executable for e in runs if type(e).__name__ == "Node"]
    assert started == [process.executable for process in processes]
    included = [e for e in runs if type(e).__name__ == "IncludeLaunchDescription"]
    assert len(included) == (chosen["sim"] in OTHERS)
    value = runpy.run_path(str(FILE))["value"](Managed())
    assert tuple(value.evaluate(context)) == parameters(processes[-1], values)["nodes"]


def test_a_misspelt_argument_is_pointed_out(described: tuple[Any, Any]) -> None:
    del described
    misspelt = runpy.run_path(str(FILE))["misspelt"]
    assert misspelt(["shdow:=true", "robot:=aloha", "a_parents_own:=1", "--debug"]) == [
        "no argument is called 'shdow'; did you mean shadow?"
    ]


def test_a_death_has_the_consequence_of_the_graph(described: tuple[Any, Any]) -> None:
    del described
    consequence = runpy.run_path(str(FILE))["consequence"]
    for process in PROCESSES:
        for code in (0, 1):
            assert bool(consequence(process, Exited(code))) is process.death.ends_graph(code)


class Exited:
    def __init__(self, returncode: int) -> None:
        self.returncode = returncode


def test_a_missing_viewer_is_said_before_anything_starts(
    described: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    context, entities = described
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    monkeypatch.setenv("AMENT_PREFIX_PATH", "")
    kinds = [type(entity).__name__ for entity in entities]
    assert kinds.index("OpaqueFunction") < min(kinds.index("Node"), kinds.index("IncludeLaunchDescription"))
    for argument in ARGUMENTS:
        context.launch_configurations[argument.name] = str(argument.default).lower()
    check = entities[kinds.index("OpaqueFunction")]
    check.visit(context)
    context.launch_configurations["rviz"] = "true"
    with pytest.raises(GraphError, match="rviz:=true needs robot_state_publisher, rviz2"):
        check.visit(context)


@pytest.mark.parametrize("base", [None, "hall"])
@pytest.mark.parametrize("namespace", ["", "cell", "/cell"])
def test_a_sites_parameters_come_last_and_reach_the_nodes_in_any_namespace(
    described: tuple[Any, Any], tmp_path: Path, namespace: str, base: str | None
) -> None:
    context, entities = described
    file = tmp_path / "mine.yaml"
    file.write_text("executor: {ros__parameters: {guard: {speed_cap: 0.1}}}\n")
    chosen = {"namespace": namespace, "parameters": str(file)}
    context.launch_configurations.update({a.name: str(a.default).lower() for a in ARGUMENTS} | chosen)
    if base:
        context.launch_configurations["ros_namespace"] = base
    runs = [e for e in entities if e.condition is None or e.condition.evaluate(context)]
    next(e for e in runs if type(e).__name__ == "OpaqueFunction").visit(context)
    written = context.launch_configurations["site_parameters"]
    executor = next(e for e in runs if type(e).__name__ == "Node" and e.node_executable == "executor_node")
    executor._perform_substitutions(context)
    assert yaml.safe_load(Path(written).read_text())[executor.node_name] == {
        "ros__parameters": {"guard.speed_cap": 0.1}
    }
    plain = [word[0].text for word in executor.cmd if [type(part).__name__ for part in word] == ["TextSubstitution"]]
    assert plain[len(plain) - plain[::-1].index("--params-file")] == written
    assert executor.node_name.count("/cell") == bool(namespace)


def test_the_urdf_goes_to_who_shows_it(described: tuple[Any, Any]) -> None:
    context, _ = described
    context.launch_configurations["robot"] = "aloha"
    urdf = runpy.run_path(str(FILE))["value"](Description())
    assert "left_wrist_angle" in urdf.evaluate(context)


@pytest.mark.parametrize(
    "site",
    [
        {},
        {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"},
        {"ROS_LOCALHOST_ONLY": "1"},
        {profile_variable(): "/mine.xml"},
    ],
    ids=str,
)
def test_processes_reach_as_far_as_under_up(
    described: tuple[Any, Any], site: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, entities = described
    names = ("ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY", profile_variable())
    for name in names:
        monkeypatch.setenv(name, "")  # or what the launch sets would outlive the test
        monkeypatch.delenv(name)
    for name, value in site.items():
        monkeypatch.setenv(name, value)
    expected = [{name: environment(process, site).get(name) for name in names} for process in PROCESSES]
    runpy.run_path(str(FILE))["stay_local"](context)
    nodes = [e for e in entities if type(e).__name__ == "Node"]
    for node, wanted in zip(nodes, expected, strict=True):
        own = {"".join(part.text for part in name): value for name, value in node.additional_env or ()}
        found = {name: context.environment.get(name) for name in names}
        found |= {name: "".join(part.perform(context) for part in value) for name, value in own.items()}
        assert found == wanted


ROS2_CONTROL = FILE.with_name("ros2_control.launch.py")


@pytest.mark.parametrize(
    ("control", "text"),
    [
        ("", "the description of mine leaves real arms to their own drivers; start those and give sim:=none"),
        ("<plugin></plugin>", "the description of mine names no driver for real arms; write its ros2_control plugin"),
    ],
)
def test_real_arms_need_a_driver(described: tuple[Any, Any], control: str, text: str) -> None:
    del described
    require = runpy.run_path(str(ROS2_CONTROL))["require_driver"]
    inside = f"<ros2_control><hardware>{control}</hardware></ros2_control>" if control else ""
    with pytest.raises(GraphError, match=text):
        require("mine", f"<robot>{inside}</robot>")
    require("mine", "<robot><ros2_control><hardware><plugin>a/B</plugin></hardware></ros2_control></robot>")


HARDWARE = """<robot><ros2_control>{}</ros2_control></robot>"""


@pytest.mark.parametrize(
    ("output", "kind"), [("forward", "forward_position_controller"), ("trajectory", "joint_trajectory_controller")]
)
def test_controllers_follow_the_executors_output_and_the_description(
    described: tuple[Any, Any], output: str, kind: str
) -> None:
    del described
    started = runpy.run_path(str(ROS2_CONTROL))["started"]
    robots = sorted((share_dir() / "config" / "robots").glob("*.yaml"))
    assert robots
    for path in robots:
        robot = load_embodiment(path.stem)
        arms, whole = ("".join(f"<joint name='{j.name}'/>" for a in robot.arms for j in some(a)) for some in PARTS)
        names = [f"left_{kind}", "left_gripper_controller", f"right_{kind}", "right_gripper_controller"]
        assert started(robot, HARDWARE.format(whole), output) == ["joint_state_broadcaster", *names]
        assert started(robot, HARDWARE.format(arms), output) == ["joint_state_broadcaster", *names[::2]]
        configured = yaml.safe_load((share_dir() / "config" / "controllers" / path.name).read_text())
        assert set(names) <= set(configured["/**/controller_manager"]["ros__parameters"])


PARTS = (lambda arm: arm.joints, lambda arm: arm.members)


@pytest.mark.parametrize(("text", "output"), [("", "forward"), ("output: trajectory", "trajectory")])
def test_the_output_in_a_sites_file_reaches_the_controllers(
    described: tuple[Any, Any], tmp_path: Path, text: str, output: str
) -> None:
    context, entities = described
    file = tmp_path / "mine.yaml"
    file.write_text(f"executor: {{ros__parameters: {{{text}}}}}\n")
    chosen = {"namespace": "cell", "parameters": str(file)}
    context.launch_configurations.update({a.name: str(a.default).lower() for a in ARGUMENTS} | chosen)
    next(e for e in entities if type(e).__name__ == "OpaqueFunction").visit(context)
    include = next(e for e in entities if type(e).__name__ == "IncludeLaunchDescription")
    assert dict(include.launch_arguments)["output"].perform(context) == output


def test_controllers_that_a_namespace_would_hide_are_refused(described: tuple[Any, Any], tmp_path: Path) -> None:
    context, _ = described
    require = runpy.run_path(str(ROS2_CONTROL))["require_keys"]
    file = tmp_path / "mine_controllers.yaml"
    file.write_text("controller_manager: {}\n/**/left_gripper_controller: {}\n/cell/right_gripper_controller: {}\n")
    context.launch_configurations["namespace"] = ""
    require(file, context)
    context.launch_configurations["namespace"] = "cell"
    text = "controller_manager would reach nobody in namespace /cell; write /\\*\\*/controller_manager, as config/"
    with pytest.raises(ConfigError, match=text):
        require(file, context)
    for shipped in (share_dir() / "config" / "controllers").glob("*.yaml"):
        require(shipped, context)


def test_the_controllers_outlive_the_executor(described: tuple[Any, Any]) -> None:
    """Out of the terminal's session they miss its Ctrl-C; the executor's end is theirs."""
    context, entities = described
    programs, handler = runpy.run_path(str(ROS2_CONTROL))["manager"]("controllers.yaml")
    patience = "".join(part.perform(context) for part in programs.sigterm_timeout)
    assert float(patience) > 5, "by then launch has ended the executor"
    (call,) = (c for c in ast.walk(ast.parse(ROS2_CONTROL.read_text())) if "ros2_control_node" in words_of(c))
    assert {k.arg: ast.unparse(k.value) for k in call.keywords}["prefix"] == "'setsid'"
    is_executor = runpy.run_path(str(ROS2_CONTROL))["is_executor"]
    nodes = [e for e in entities if type(e).__name__ == "Node"]
    assert {n.node_executable for n in nodes if is_executor(n)} == {"executor_node"}
    assert type(handler.event_handler).__name__ == "OnProcessExit"


def test_gazebo_finds_the_meshes_of_vendors(described: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    context, _ = described
    monkeypatch.setenv("GZ_SIM_RESOURCE_PATH", "/mine")
    monkeypatch.setenv("AMENT_PREFIX_PATH", "/opt/ros/jazzy")
    runpy.run_path(str(ROS2_CONTROL))["simulator"]()[0].visit(context)
    assert context.environment["GZ_SIM_RESOURCE_PATH"].startswith("/mine:/opt/ros/jazzy/share:")


def words_of(call: ast.AST) -> list[str]:
    """Plain words that are given to a call."""
    return [a.value for a in call.args if isinstance(a, ast.Constant)] if isinstance(call, ast.Call) else []


def test_what_others_offer_is_named_with_its_package() -> None:
    calls = [n for n in ast.walk(ast.parse(ROS2_CONTROL.read_text())) if isinstance(n, ast.Call)]
    nodes = [c for c in calls if ast.unparse(c.func) == "node"]
    named = {ast.literal_eval(call.args[0]) for call in nodes}
    assert named <= {package for packages in OTHERS.values() for package in packages}


def test_without_the_packages_the_launch_says_what_to_install(
    described: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    context, _ = described
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    monkeypatch.setenv("AMENT_PREFIX_PATH", "")
    start = runpy.run_path(str(ROS2_CONTROL))["start"]
    context.launch_configurations.update(
        {"hardware": "mock", "robot": "sim_cell", "namespace": "", "output": "forward"}
    )
    with pytest.raises(GraphError, match="sim:=mock needs robot_state_publisher, controller_manager"):
        start(context)


def test_a_robot_of_ones_own_brings_its_controllers(described: tuple[Any, Any], tmp_path: Path) -> None:
    del described
    find = runpy.run_path(str(ROS2_CONTROL))["controllers_of"]
    assert find("ur5e", "ur5e") == share_dir() / "config" / "controllers" / "ur5e.yaml"
    with pytest.raises(ConfigError, match=r"no controllers of robot mine: .*mine_controllers.yaml is missing; copy"):
        find(str(tmp_path / "mine.yaml"), "mine")
    (tmp_path / "mine_controllers.yaml").touch()
    assert find(str(tmp_path / "mine.yaml"), "mine") == tmp_path / "mine_controllers.yaml"
