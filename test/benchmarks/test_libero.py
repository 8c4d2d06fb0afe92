# SPDX-License-Identifier: Apache-2.0
"""LIBERO's interface: what the policy sees, what the simulator is told, and the authors' settings."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from imagewam_ros.benchmarks.libero import Libero, LiberoConfig, axis_angle, categories, observation, to_env
from imagewam_ros.core.errors import ConfigError, EmbodimentMismatch
from imagewam_ros.core.schema import ActionChunk

FAKES = Path(__file__).resolve().parents[1] / "fakes" / "simulators"


class Pusher:
    """Goes along x; closes its gripper after `close_after` chunks."""

    def __init__(self, close_after: int = 0) -> None:
        self.seen, self.seeds, self._close_after = [], [], close_after

    def infer(self, observation, seed=0, ready_ns=0):
        self.seen.append(observation)
        self.seeds.append(seed)
        rows = np.zeros((16, 7))
        rows[:, 0], rows[:, 6] = 0.5, 0.1 if len(self.seen) > self._close_after else 0.9
        return ActionChunk(0, 1, ("a",) * 7, rows)


@pytest.fixture
def libero(monkeypatch):
    monkeypatch.syspath_prepend(FAKES)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "libero"]:
        del sys.modules[name]


@pytest.mark.usefixtures("libero")
def test_a_trial_waits_replans_and_ends_when_done() -> None:
    benchmark, policy = Libero(LiberoConfig(wait_steps=3, replan_steps=5)), Pusher(close_after=1)
    assert benchmark.tasks() == ("push_the_button", "open_the_drawer") and not benchmark.perturbed
    (first, second) = benchmark.play("open_the_drawer", policy, trials=2, seed=7)
    import libero.libero.envs as envs

    env = envs.LOG[-1]
    assert first.success and second.success and first.instruction == "open the drawer"
    assert first.steps == 13, "x passes 0.3 in step 13, with the gripper closed from step 6 on"
    assert env.actions[:3] == [[0.0] * 6 + [-1.0]] * 3 and len(env.actions) == 3 + second.steps
    assert env.size == (256, 256) and env.file.endswith("bddl_files/libero_spatial/open_the_drawer.bddl")
    assert env.seeded == 7 and env.state.tolist() == [102.0, 103.0], "the second trial starts from the second state"
    assert {action[6] for action in env.actions[3:]} == {1.0}, "closed is 1 for the simulator"
    assert len(policy.seen) == 3 + 3 and len(set(policy.seeds)) == 6


@pytest.mark.usefixtures("libero")
def test_a_trial_has_the_authors_limit() -> None:
    (played,) = Libero(LiberoConfig(wait_steps=0, replan_steps=12)).play("push_the_button", Pusher(10**6), 1, 0)
    assert not played.success and played.steps == 400


@pytest.mark.usefixtures("libero")
def test_initial_states_begin_anew() -> None:
    import libero.libero.envs as envs

    list(Libero(LiberoConfig(wait_steps=0)).play("push_the_button", Pusher(), 4, 0))
    assert envs.LOG[-1].state.tolist() == [0.0, 1.0] and envs.LOG[-1].ended


@pytest.mark.usefixtures("libero")
def test_images_are_turned_and_the_state_has_eight_numbers() -> None:
    policy = Pusher()
    list(Libero(LiberoConfig(wait_steps=0)).play("push_the_button", policy, 1, 0))
    seen = policy.seen[0]
    assert list(seen.images) == ["agentview", "wrist"] and seen.images["agentview"][-1, -1].tolist() == [255] * 3
    assert not seen.images["agentview"][0, 0].any() and seen.images["wrist"][-1, -1].tolist() == [127] * 3
    assert np.allclose(seen.positions, [0, 0, 1, 0.5, 0, 0, 0.04, -0.04])


@pytest.mark.parametrize(("share", "wanted"), [(1.0, -1.0), (0.51, -1.0), (0.49, 1.0), (0.0, 1.0)])
def test_the_gripper_is_turned_round_and_rounded(share, wanted) -> None:
    assert to_env(np.array([0, 0, 0, 0, 0, 0, share]), "share")[-1] == wanted
    assert to_env(np.array([0, 0, 0, 0, 0, 0, share]), "env")[-1] == share


def test_angles_are_robosuites() -> None:
    assert np.allclose(axis_angle(np.array([0.0, 0.0, 0.0, 1.0])), 0)
    assert np.allclose(axis_angle(np.array([0.0, np.sin(1.5), 0.0, np.cos(1.5)])), [0, 3.0, 0])
    assert np.allclose(axis_angle(np.array([0.0, 0.0, np.sin(2.0), np.cos(2.0)])), [0, 0, 4.0]), "beyond pi as it is"


def test_categories_come_from_libero_plus(tmp_path) -> None:
    assert categories(tmp_path, "libero_10") == {}
    entry = {"id": 1, "name": "open_table_1", "category": "Background Textures", "difficulty_level": 2}
    (tmp_path / "task_classification.json").write_text(json.dumps({"libero_10": [entry]}))
    assert categories(tmp_path, "libero_10") == {"open_table_1": "Background Textures"}
    assert categories(tmp_path, "libero_goal") == {}


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(EmbodimentMismatch, match="no robot0_eef_quat; found agentview_image"):
        keys = ("agentview_image", "robot0_eye_in_hand_image", "robot0_eef_pos", "robot0_gripper_qpos")
        observation(dict.fromkeys(keys, np.zeros(3)), "lift", ("a", "b"))
    with pytest.raises(EmbodimentMismatch, match=r"LIBERO takes 7 numbers, the policy gives \[14\]"):
        to_env(np.zeros(14), "share")
    with pytest.raises(ConfigError, match="unknown suite 'libero_spacial'; did you mean 'libero_spatial'"):
        LiberoConfig("libero_spacial")
    with pytest.raises(ConfigError, match="unknown gripper 'shar'"):
        LiberoConfig(gripper="shar")
    with pytest.raises(ConfigError, match="replan_steps positive"):
        LiberoConfig(replan_steps=0)


def test_an_absent_libero_is_named() -> None:
    with pytest.raises(ConfigError, match=r"LIBERO cannot be imported \(No module named 'libero'\)"):
        Libero()


@pytest.mark.usefixtures("libero")
def test_an_unknown_task_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown task 'push_the_buton'; did you mean 'push_the_button'"):
        next(Libero().play("push_the_buton", Pusher(), 1, 0))
