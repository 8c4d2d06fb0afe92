# SPDX-License-Identifier: Apache-2.0
import os
from pathlib import Path

import pytest

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.paths import share_dir
from imagewam_ros.graph import ARGUMENTS, PROCESSES, Death, Ref, parameters, profile_variable, running, settings


def test_every_process_has_an_executable_script() -> None:
    for process in PROCESSES:
        script = share_dir() / "scripts" / process.executable
        assert os.access(script, os.X_OK), script
        assert f"from imagewam_ros.nodes.{process.executable} import main" in script.read_text()


def test_references_and_conditions_name_arguments() -> None:
    known = {argument.name for argument in ARGUMENTS}
    for process in PROCESSES:
        assert set(process.when) <= known
        assert {value.argument for value in process.parameters.values() if isinstance(value, Ref)} <= known


@pytest.mark.parametrize("sim", ["mujoco", "none"])
def test_names_are_unique_and_the_executor_is_activated_last(sim: str) -> None:
    values = settings({"sim": sim})
    processes = running(values)
    names = [process.name for process in processes]
    assert len(set(names)) == len(names)
    bringup = next(process for process in processes if process.name == "bringup")
    managed = parameters(bringup, values)["nodes"]
    assert isinstance(managed, tuple)
    assert managed == tuple(name for name in names if name != "bringup")
    assert managed[-1] == "executor"


def test_only_the_death_of_the_policy_leaves_the_graph_alive() -> None:
    assert {p.name for p in PROCESSES if p.death is Death.ARMS_HOLD} == {"policy"}


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
        ({"sim": "gazebo"}, "unknown value of sim 'gazebo'; known: mujoco, none"),
        ({"speed": "fast"}, "speed must be a float, found 'fast'"),
        ({"seed": "1.5"}, "seed must be a int, found '1.5'"),
        ({"autostart": "yes"}, "autostart must be true or false, found 'yes'"),
    ],
)
def test_wrong_choices_are_refused_with_what_is_right(chosen: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError) as error:
        settings(chosen)
    assert text in str(error.value)
