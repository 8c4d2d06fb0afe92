# SPDX-License-Identifier: Apache-2.0
"""`imagewam evaluate --benchmark`: a server of a baseline on LIBERO and RoboTwin, and what does not fit together."""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from policy_server import PolicyServerFake
from small_checkpoint import small_checkpoint
from small_contract import small_contract

from imagewam_ros import evaluate
from imagewam_ros.benchmarks.trial import Played, RawSpace
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError, EmbodimentMismatch
from imagewam_ros.evaluation.benchmark import by_category

FAKES = Path(__file__).resolve().parents[1] / "fakes" / "simulators"


@pytest.fixture(autouse=True)
def simulators(monkeypatch):
    monkeypatch.syspath_prepend(FAKES)
    yield
    for name in list(sys.modules):
        if name.split(".")[0] in ("libero", "envs", "generate_episode_instructions"):
            del sys.modules[name]


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    return evaluate.run(parser.parse_args(words))


def push(_):
    rows = np.zeros((10, 7))
    rows[:, 0], rows[:, 6] = 0.5, 1.0  # openpi's policies speak the simulator's gripper
    return {"actions": rows}


def test_a_server_plays_libero(tmp_path, capsys) -> None:
    with PolicyServerFake(push) as server:
        address = server.address + "?layout=libero"
        words = ["--benchmark", "libero_spatial", "--policy", address, "--episodes", "2", "--seed", "3"]
        assert run(*words, "--json", "--out", str(tmp_path)) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [line["task"] for line in lines] == ["push_the_button", "open_the_drawer", "all"]
    assert [(line["successes"], line["episodes"]) for line in lines] == [(2, 2), (2, 2), (4, 4)]
    assert set(server.seen[0]) == {"observation/image", "observation/wrist_image", "observation/state", "prompt"}
    assert server.seen[0]["observation/image"].shape == (224, 224, 3)
    data = json.loads((tmp_path / "benchmark.json").read_text())
    assert len(data["trials"]) == 4 and data["provenance"]["versions"]


def test_a_server_plays_robotwin(capsys) -> None:
    def raise_all(seen):
        return {"actions": seen["state"] + 0.02 * np.arange(1, 17)[:, None]}

    with PolicyServerFake(raise_all) as server:
        words = ["--benchmark", "robotwin_clean", "--benchmark-root", str(FAKES / "robotwin")]
        assert run(*words, "--policy", server.address, "--episodes", "1", "--seed", "0", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["successes"] == 1


def test_a_checkpoint_plays_robotwin(tmp_path, capsys) -> None:
    robot = load_embodiment("sim_cell")
    contract = small_contract(robot, tile=32, text_length=64, prompt="do: {task}", relative=(False,) * 14)
    checkpoint = small_checkpoint(tmp_path / "small", contract)
    words = ["--benchmark", "robotwin_randomised", "--benchmark-root", str(FAKES / "robotwin")]
    assert run(*words, "--policy", str(checkpoint), "--episodes", "1", "--json") == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["episodes"] == 1 and len(last["checkpoint"]) == 16


def test_the_benchmarks_own_scenes_and_all_tasks_are_the_default(capsys) -> None:
    with PolicyServerFake(push) as server:
        address = server.address + "?layout=libero"
        assert (
            run("--benchmark", "libero_spatial", "--policy", address, "--task", "all", "--episodes", "1", "--json") == 0
        )
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [line["task"] for line in lines] == ["push_the_button", "open_the_drawer", "all"]
    assert {line["seed"] for line in lines} == {0}


def test_a_policy_of_another_robot_is_refused(tmp_path) -> None:
    checkpoint = small_checkpoint(tmp_path / "small")
    with pytest.raises(EmbodimentMismatch, match="has 8 state and 7 action numbers, the policy 14 and 14, relative"):
        run("--benchmark", "libero_spatial", "--policy", str(checkpoint))


def test_other_cameras_are_refused() -> None:
    with PolicyServerFake(push) as server, pytest.raises(EmbodimentMismatch, match="2 cameras, the policy wants head"):
        run("--benchmark", "libero_spatial", "--policy", server.address)


def test_names_are_checked() -> None:
    with pytest.raises(ConfigError, match="unknown benchmark 'libero_gaol'; did you mean 'libero_goal'"):
        run("--benchmark", "libero_gaol")
    with pytest.raises(ConfigError, match="RoboTwin runs from its own folder; give --benchmark-root DIR"):
        run("--benchmark", "robotwin_clean")


@pytest.mark.parametrize("episodes", ["0", "-1"])
def test_at_least_one_trial_is_played(episodes) -> None:
    with pytest.raises(ConfigError, match=f"--episodes must be positive, found {episodes}"):
        run("--benchmark", "libero_spatial", "--episodes", episodes)


def test_devices_are_checked() -> None:
    with pytest.raises(ConfigError, match="unknown device 'gpu'; use auto, cpu, cuda or cuda:N"):
        run("--benchmark", "libero_spatial", "--device", "gpu")


def test_perturbations_are_counted_apart() -> None:
    trials = [Played("a", 0, i > 0, 1, "", kind) for i, kind in enumerate(("Camera", "Camera", "Light", ""))]
    found = by_category(trials)
    counts = {name: (row["successes"], row["episodes"]) for name, row in found.items()}
    assert counts == {"Camera": (1, 2), "Light": (1, 1)}


def test_vectors_pass_as_they_are() -> None:
    space, vector = RawSpace(8), np.arange(8.0)
    assert space.joints == 8 and space.state(vector) is vector
    assert space.targets(vector, np.zeros(8)) is vector and space.actions(vector, np.zeros(8)) is vector
