# SPDX-License-Identifier: Apache-2.0
import os
from pathlib import Path

import pytest

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError, GraphError
from imagewam_ros.core.paths import PACKAGE, share_dir
from imagewam_ros.graph import (
    ARGUMENTS,
    PROCESSES,
    Death,
    Ref,
    one_of,
    parameters,
    running,
    settings,
    words,
)
from imagewam_ros.middleware import profile_variable
from imagewam_ros.packages import OTHERS, needed_packages, require_launch, require_packages


def test_every_process_has_an_executable_script() -> None:
    for process in (process for process in PROCESSES if process.package == PACKAGE):
        script = share_dir() / "scripts" / process.executable
        assert os.access(script, os.X_OK), script
        assert f"from imagewam_ros.nodes.{process.executable} import main" in script.read_text()


def test_references_and_conditions_name_arguments() -> None:
    known = {argument.name for argument in ARGUMENTS}
    for process in PROCESSES:
        assert set(process.when) | set(process.unless) | set(process.any_of) <= known
        assert {value.argument for value in process.parameters.values() if isinstance(value, Ref)} <= known


def test_conditions_name_values_that_can_be_chosen() -> None:
    arguments = {argument.name: argument for argument in ARGUMENTS}
    for process in PROCESSES:
        for name, wanted in process.when.items():
            allowed = arguments[name].choices or (True, False)
            assert set(one_of(wanted)) <= set(allowed)


def test_the_default_graph_is_the_simulated_cell() -> None:
    values = settings({})
    assert [process.name for process in running(values)] == ["sim", "policy", "executor", "bringup"]


CELLS: list[dict[str, str]] = [
    *({"sim": sim} for sim in ("mujoco", "none", "mock", "gazebo", "isaac", "real")),
    {"rviz": "true", "foxglove": "true"},
    {"sim": "none", "cameras": "realsense", "record": "true", "teleop": "leader", "doctor": "true"},
    {"sim": "none", "cameras": "usb", "teleop": "keyboard", "takeover": "true"},
]


@pytest.mark.parametrize("chosen", CELLS, ids=str)
def test_names_are_unique_and_the_executor_is_activated_last(chosen: dict[str, str]) -> None:
    values = settings(chosen)
    processes = running(values)
    names = [process.name for process in processes]
    assert len(set(names)) == len(names)
    assert names[-1] == "bringup"
    managed = parameters(processes[-1], values)["nodes"]
    assert isinstance(managed, tuple)
    others = {"robot_state_publisher", "rviz", "foxglove", "bringup"}
    assert managed == tuple(name for name in names if name not in others)
    assert managed[-1] == "executor"
    assert managed[-2] == "doctor" or chosen.get("doctor") != "true"


def test_hands_alone_need_no_policy() -> None:
    values = settings({"policy": "none", "teleop": "gamepad"})
    assert [process.name for process in running(values)] == ["sim", "teleop", "executor", "bringup"]


@pytest.mark.parametrize(
    ("chosen", "shown_by"),
    [
        ({"rviz": "true"}, ["robot_state_publisher", "rviz"]),
        ({"foxglove": "true"}, ["robot_state_publisher", "foxglove"]),
        ({"rviz": "true", "foxglove": "true"}, ["robot_state_publisher", "rviz", "foxglove"]),
        ({"rviz": "true", "sim": "mock"}, ["rviz"]),
        ({"rviz": "true", "sim": "none"}, ["rviz"]),
        ({}, []),
    ],
    ids=str,
)
def test_viewers_bring_what_they_show_unless_others_do(chosen: dict[str, str], shown_by: list[str]) -> None:
    values = settings(chosen)
    assert [process.name for process in running(values) if process.package != PACKAGE] == shown_by


def test_viewers_get_the_urdf_and_our_files() -> None:
    values = settings({"rviz": "true", "robot": "aloha"})
    viewers = {process.name: process for process in running(values)}
    urdf = parameters(viewers["robot_state_publisher"], values)["robot_description"]
    assert "left_wrist_angle" in str(urdf)
    flag, path = words(viewers["rviz"])
    assert flag == "-d" and Path(path).is_file()


def test_foxglove_is_reached_from_this_computer_alone_and_only_looks() -> None:
    values = settings({"foxglove": "true"})
    (bridge,) = (p for p in running(values) if p.name == "foxglove")
    found = parameters(bridge, values)
    assert found["address"] == "127.0.0.1"
    assert not {"clientPublish", "services", "parameters"} & set(found["capabilities"])  # type: ignore[arg-type]


def test_each_kind_of_camera_serves_the_robots_topics() -> None:
    values = settings({"sim": "none", "cameras": "realsense", "head_device": "0123"})
    found = [parameters(process, values) for process in running(values) if process.publishes_images]
    topics = {f"{p['camera_name']}/color/image_raw" for p in found}
    assert topics == {camera.topic for camera in load_embodiment("sim_cell").cameras}
    assert found[0]["serial_no"] == "0123"


def test_what_only_observes_or_commands_leaves_the_executor_alive() -> None:
    optional = {"head_camera", "left_wrist_camera", "right_wrist_camera", "recorder", "teleop", "doctor"}
    viewers = {"robot_state_publisher", "rviz", "foxglove"}
    assert {p.name for p in PROCESSES if not p.death.ends_graph(1)} == {"policy", *optional, *viewers}
    assert all(Death.ENDS_GRAPH.ends_graph(code) for code in (0, 1))
    assert not Death.FAILURE_ENDS_GRAPH.ends_graph(0)


def test_isaac_gets_joint_commands_and_hardware_is_guarded() -> None:
    for sim, output in (("none", None), ("mock", None), ("gazebo", None), ("real", None), ("isaac", "joint_command")):
        values = settings({"sim": sim})
        executor = next(p for p in running(values) if p.name == "executor")
        found = parameters(executor, values)
        assert found.get("output") == output
        assert "guarded" not in found


def test_grippers_of_simulated_arms_have_forward_controllers_whatever_the_real_ones_have() -> None:
    for sim, grippers in (("mujoco", "commands"), ("mock", "commands"), ("gazebo", "commands"), ("real", None)):
        values = settings({"sim": sim, "robot": "fr3"})
        executor = next(p for p in running(values) if p.name == "executor")
        assert parameters(executor, values).get("grippers") == grippers


NEEDS = [
    *(
        ({"sim": sim}, rf"sim:={sim} needs robot_state_publisher, controller_manager, .*sudo apt install ros")
        for sim in OTHERS
    ),
    ({"rviz": "true"}, r"rviz:=true needs robot_state_publisher, rviz2, not found in .*ros-\$ROS_DISTRO-rviz2"),
    ({"foxglove": "true", "sim": "none"}, r"foxglove:=true needs foxglove_bridge, .*ros-\$ROS_DISTRO-foxglove-bridge"),
    ({"sim": "mock", "rviz": "true"}, r"sim:=mock and rviz:=true need robot_state_publisher, .*rviz2"),
]


@pytest.mark.parametrize(("chosen", "text"), NEEDS, ids=str)
def test_missing_packages_are_named_with_the_way_to_get_them(
    chosen: dict[str, str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.prefix", str(tmp_path / "none"))
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    needed = needed_packages(settings(chosen))
    with pytest.raises(GraphError, match=text):
        require_packages(needed)
    index = tmp_path / "share/ament_index/resource_index/packages"
    index.mkdir(parents=True)
    for package in needed:
        (index / package).touch()
    require_packages(needed)


def test_the_cell_itself_needs_no_other_package() -> None:
    assert needed_packages(settings({"record": "true", "doctor": "true"})) == {}


@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        ({"sim": "mock"}, "dual_arm.launch.py sim:=mock`, or start them and give sim:=none"),
        ({"sim": "gazebo"}, "dual_arm.launch.py sim:=gazebo`"),
        ({"sim": "real"}, "dual_arm.launch.py sim:=real`"),
        ({"teleop": "keyboard"}, "give the name that it prints as terminal:=/dev/pts/N"),
    ],
)
def test_up_says_what_it_cannot_start(chosen: dict[str, str], text: str) -> None:
    with pytest.raises(GraphError) as error:
        require_launch(settings(chosen))
    assert text in str(error.value)


def test_up_starts_everything_else() -> None:
    for chosen in ({}, {"sim": "none"}, {"sim": "isaac"}, {"teleop": "keyboard", "terminal": "/dev/pts/7"}):
        require_launch(settings(chosen))


def test_each_fast_dds_is_told_of_the_profile_by_its_own_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.prefix", str(tmp_path / "none"))
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    assert profile_variable() == "FASTRTPS_DEFAULT_PROFILES_FILE"
    (tmp_path / "share" / "fastdds").mkdir(parents=True)
    assert profile_variable() == "FASTDDS_DEFAULT_PROFILES_FILE"


def test_parameters_follow_the_arguments() -> None:
    values = settings({"robot": "other", "speed": "0.5", "use_sim_time": "true", "seed": "7"})
    sim = parameters(running(values)[0], values)
    assert sim == {"use_sim_time": True, "robot": "other", "task": "tray_lift", "seed": 7, "speed": 0.5}


@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        ({"polcy": "x"}, "unknown argument 'polcy'; did you mean 'policy'"),
        ({"sim": "gazbo"}, "unknown value of sim 'gazbo'; did you mean 'gazebo'"),
        ({"speed": "fast"}, "speed must be a float, found 'fast'"),
        ({"seed": "1.5"}, "seed must be a int, found '1.5'"),
        ({"autostart": "yes"}, "autostart must be true or false, found 'yes'"),
    ],
)
def test_wrong_choices_are_refused_with_what_is_right(chosen: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError) as error:
        settings(chosen)
    assert text in str(error.value)
