# SPDX-License-Identifier: Apache-2.0
"""RoboTwin 2.0, played as its own evaluation script and ImageWAM's authors do.

State and action: both arms' joints in rad with the gripper's opening behind each arm (14), commanded through the
simulator's time parametrisation. Scenes that its expert cannot solve are left out, so seeds may be skipped.
Source: RoboTwin 2.0, `script/eval_policy.py`; ImageWAM, `experiments/robotwin/imagewam_policy/deploy_policy.py`,
`scripts/flux2/run_eval_flux2_robotwin.sh`.
"""

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from imagewam_ros.benchmarks.trial import ChunkSource, Played
from imagewam_ros.core.config import read_yaml
from imagewam_ros.core.errors import ConfigError, EmbodimentMismatch, unknown_name
from imagewam_ros.core.schema import Observation

CONFIGS = ("demo_clean", "demo_randomized")
INSTRUCTIONS = ("seen", "unseen")
STATE = ACTION = 14
FIRST_SEED = 100_000
"""Scenes of evaluation seed s begin at FIRST_SEED * (1 + s)."""
TRIES = 20
"""Scenes that may be left out per trial before the task counts as broken."""


@dataclass(frozen=True)
class RobotwinConfig:
    """root is a checkout of RoboTwin 2.0 with its assets; replan_steps rows of each chunk are executed."""

    root: Path
    task_config: str = "demo_clean"
    instructions: str = "unseen"
    replan_steps: int = 16

    def __post_init__(self) -> None:
        if self.task_config not in CONFIGS:
            raise ConfigError(unknown_name("task_config", self.task_config, CONFIGS))
        if self.instructions not in INSTRUCTIONS:
            raise ConfigError(unknown_name("instructions", self.instructions, INSTRUCTIONS))
        for part in ("envs", "task_config", "description/utils"):
            if not (self.root / part).is_dir():
                raise ConfigError(f"no {part} in {self.root}; is it a checkout of RoboTwin 2.0?")


class Robotwin:
    """All tasks under one of both configurations. RoboTwin's code must run in its own folder."""

    def __init__(self, config: RobotwinConfig) -> None:
        self.config = config
        self.name = f"robotwin_{config.task_config.removeprefix('demo_')}"
        self.cameras: tuple[str, ...] = ("head", "left_wrist", "right_wrist")

    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that have a limit of steps."""
        return tuple(read_yaml(self.config.root / "task_config" / "_eval_step_limit.yml"))

    def play(self, task: str, source: ChunkSource, trials: int, seed: int) -> Iterator[Played]:
        """Play `trials` scenes that the expert solves, from FIRST_SEED * (1 + seed) on."""
        if task not in self.tasks():
            raise ConfigError(unknown_name("task", task, self.tasks()))
        with _inside(self.config.root):
            env, unstable = _environment(task)
            arguments = settings(self.config.root, task, self.config.task_config)
            scene, trial, skipped = FIRST_SEED * (1 + seed), 0, 0
            while trial < trials:
                if skipped > TRIES * trials:
                    raise ConfigError(
                        f"RoboTwin's expert solved {trial} of {trial + skipped} scenes of {task}, {trials} are needed; "
                        "are its assets complete?"
                    )
                info = _solvable(env, unstable, arguments, trial, scene)
                if info is None:
                    scene, skipped = scene + 1, skipped + 1
                    continue
                env.setup_demo(now_ep_num=trial, seed=scene, is_test=True, **arguments)
                text = self._instruction(task, info, trials, scene)
                env.set_instruction(instruction=text)
                success, steps = self._run(env, source, text, 1000 * scene)
                env.close_env()
                yield Played(task, scene, success, steps, text)
                scene, trial = scene + 1, trial + 1

    def _instruction(self, task: str, info: Any, trials: int, scene: int) -> str:
        """One of the generated instructions, drawn from the scene's seed (RoboTwin draws from the global state)."""
        words = importlib.import_module("generate_episode_instructions")
        choices = words.generate_episode_descriptions(task, [info], trials)[0][self.config.instructions]
        return str(np.random.default_rng(scene).choice(choices))

    def _run(self, env: Any, source: ChunkSource, text: str, seed: int) -> tuple[bool, int]:
        while env.take_action_cnt < env.step_lim and not env.eval_success:
            chunk = source.infer(observation(env.get_obs(), text, self.cameras), seed + env.take_action_cnt)
            if chunk.positions.shape[1] != ACTION:
                raise EmbodimentMismatch(
                    f"RoboTwin takes {ACTION} numbers, the policy gives {chunk.positions.shape[1]}"
                )
            for row in chunk.positions[: self.config.replan_steps]:
                env.take_action(row, action_type="qpos")
                if env.eval_success or env.take_action_cnt >= env.step_lim:
                    break
        return bool(env.eval_success), int(env.take_action_cnt)


def observation(seen: dict[str, Any], instruction: str, cameras: tuple[str, ...]) -> Observation:
    """Return what a policy sees of RoboTwin's map. Raises EmbodimentMismatch naming what is missing."""
    keys = ("head_camera", "left_camera", "right_camera")
    views, vector = seen.get("observation", {}), seen.get("joint_action", {}).get("vector")
    missing = [f"observation/{key}/rgb" for key in keys if "rgb" not in views.get(key, {})]
    if vector is None or np.shape(vector) != (STATE,):
        missing.append(f"joint_action/vector of {STATE}")
    if missing:
        raise EmbodimentMismatch(
            f"RoboTwin's observation has no {', '.join(missing)}; switch rgb and qpos on in its task_config"
        )
    images = {camera: np.asarray(views[key]["rgb"], np.uint8) for camera, key in zip(cameras, keys, strict=True)}
    return Observation(0, images, np.asarray(vector, np.float64), instruction)


def settings(root: Path, task: str, task_config: str) -> dict[str, Any]:
    """Return the arguments of setup_demo for a task, as RoboTwin's script puts them together."""
    folder = root / "task_config"
    arguments = read_yaml(folder / f"{task_config}.yml")
    cameras, embodiments = read_yaml(folder / "_camera_config.yml"), read_yaml(folder / "_embodiment_config.yml")
    head = cameras[arguments["camera"]["head_camera_type"]]
    kinds = arguments["embodiment"]
    if len(kinds) not in (1, 3):
        raise ConfigError(f"{task_config}: embodiment has 1 or 3 entries, found {kinds}")
    left, right = (str(embodiments[kind]["file_path"]) for kind in (kinds[0], kinds[min(1, len(kinds) - 1)]))
    arguments |= {"task_name": task, "task_config": task_config, "head_camera_h": head["h"], "head_camera_w": head["w"]}
    arguments |= {"left_robot_file": left, "right_robot_file": right, "dual_arm_embodied": len(kinds) == 1}
    arguments |= {"left_embodiment_config": read_yaml(root / left / "config.yml")}
    arguments |= {"right_embodiment_config": read_yaml(root / right / "config.yml")}
    if len(kinds) == 3:
        arguments["embodiment_dis"] = kinds[2]
    return {**arguments, "eval_mode": True, "eval_video_log": False, "render_freq": 0}


def _solvable(env: Any, unstable: type[Exception], arguments: dict[str, Any], trial: int, scene: int) -> Any:
    """What RoboTwin tells of a scene that its expert solves, else None."""
    try:
        env.setup_demo(now_ep_num=trial, seed=scene, is_test=True, **arguments)
        info = env.play_once()
    except unstable:
        return None
    finally:
        env.close_env()
    return info["info"] if env.plan_success and env.check_success() else None


@contextlib.contextmanager
def _inside(root: Path) -> Iterator[None]:
    """RoboTwin's code reads files relative to its folder and imports from it."""
    added = [str(root), str(root / "description" / "utils")]
    before = Path.cwd()
    os.chdir(root)
    sys.path[:0] = added
    try:
        yield
    finally:
        os.chdir(before)
        for entry in added:
            sys.path.remove(entry)


def _environment(task: str) -> tuple[Any, type[Exception]]:
    """The task's environment and the exception of scenes that do not come to rest."""
    try:
        module: ModuleType = importlib.import_module(f"envs.{task}")
        unstable: type[Exception] = importlib.import_module("envs.utils.create_actor").UnStableError
    except ImportError as error:
        raise ConfigError(
            f"RoboTwin's {task} cannot be imported ({error}); install its requirements and assets"
        ) from error
    return getattr(module, task)(), unstable
