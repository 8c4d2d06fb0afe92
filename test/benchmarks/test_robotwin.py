# SPDX-License-Identifier: Apache-2.0
"""RoboTwin's interface: scenes that its expert solves, chunks of joints, its limits of steps."""

import sys
from pathlib import Path

import numpy as np
import pytest

from imagewam_ros.benchmarks.robotwin import Robotwin, RobotwinConfig, observation, settings
from imagewam_ros.core.errors import ConfigError, EmbodimentMismatch
from imagewam_ros.core.schema import ActionChunk

ROOT = Path(__file__).resolve().parents[1] / "fakes" / "simulators" / "robotwin"


class Raiser:
    """Raises all joints by `step` rad per row."""

    def __init__(self, step: float, joints: int = 14) -> None:
        self.seen, self._step, self._joints = [], step, joints

    def infer(self, observation, seed=0, ready_ns=0):
        self.seen.append(observation)
        rows = np.resize(observation.positions, self._joints) + self._step * np.arange(1, 17)[:, None]
        return ActionChunk(0, 1, ("a",) * self._joints, rows)


@pytest.fixture(autouse=True)
def forget():
    yield
    for name in [name for name in sys.modules if name.split(".")[0] in ("envs", "generate_episode_instructions")]:
        del sys.modules[name]


def test_scenes_that_the_expert_cannot_solve_are_left_out() -> None:
    before, benchmark, policy = Path.cwd(), Robotwin(RobotwinConfig(ROOT)), Raiser(0.02)
    played = list(benchmark.play("lift_pot", policy, 3, seed=0))
    import envs.lift_pot as pot

    assert [trial.trial for trial in played] == [100_000, 100_003, 100_004]
    assert all(trial.success and trial.steps == 11 for trial in played), "0.2 rad are passed in the 11th step"
    assert [scene for scene, _ in pot.LOG] == [100_000] * 2 + [100_001, 100_002] + [100_003] * 2 + [100_004] * 2
    assert {trial.instruction for trial in played} <= {"lift the pot", "raise the pot"}
    assert Path.cwd() == before and str(ROOT) not in sys.path
    assert list(policy.seen[0].images) == ["head", "left_wrist", "right_wrist"]
    assert policy.seen[0].images["head"].shape == (240, 320, 3) and policy.seen[0].positions.shape == (14,)


def test_a_trial_has_the_tasks_limit_and_replans() -> None:
    policy = Raiser(0.0)
    (played,) = Robotwin(RobotwinConfig(ROOT, "demo_randomized", replan_steps=16)).play("lift_pot", policy, 1, seed=2)
    assert not played.success and played.steps == 40 and len(policy.seen) == 3
    assert played.trial == 300_000


def test_settings_are_put_together_as_robotwin_does() -> None:
    found = settings(ROOT, "lift_pot", "demo_randomized")
    assert found["task_name"] == "lift_pot" and found["head_camera_h"] == 240 and found["dual_arm_embodied"]
    assert found["domain_randomization"] == {"random_light": True} and found["eval_mode"] is True
    assert len(found["left_embodiment_config"]["arm_joints_name"]) == 2


def test_what_does_not_fit_is_named(tmp_path) -> None:
    with pytest.raises(ConfigError, match="no envs in .*; is it a checkout of RoboTwin 2.0"):
        RobotwinConfig(tmp_path)
    with pytest.raises(ConfigError, match="unknown task_config 'demo_random'"):
        RobotwinConfig(ROOT, "demo_random")
    with pytest.raises(ConfigError, match="unknown instructions 'unsen'; did you mean 'unseen'"):
        RobotwinConfig(ROOT, instructions="unsen")
    with pytest.raises(ConfigError, match="unknown task 'lift_pott'; did you mean 'lift_pot'"):
        next(Robotwin(RobotwinConfig(ROOT)).play("lift_pott", Raiser(0), 1, 0))
    with pytest.raises(EmbodimentMismatch, match="RoboTwin takes 14 numbers, the policy gives 7"):
        next(Robotwin(RobotwinConfig(ROOT)).play("lift_pot", Raiser(0.02, 7), 1, 0))
    with pytest.raises(EmbodimentMismatch, match="no observation/left_camera/rgb, joint_action/vector of 14"):
        views = {"head_camera": {"rgb": 0}, "left_camera": {}, "right_camera": {"rgb": 0}}
        observation({"observation": views, "joint_action": {"vector": np.zeros(7)}}, "lift", ("a", "b", "c"))
