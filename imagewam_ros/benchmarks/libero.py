# SPDX-License-Identifier: Apache-2.0
"""LIBERO and LIBERO-Plus, played as ImageWAM's authors do.

State: tool position, axis times angle, both fingers (8). Action: a step of the tool in units of the controller and the
gripper (7), executed as it is. Source: ImageWAM, `experiments/libero/eval_libero_single.py`, `libero_utils.py`,
`scripts/flux2/run_eval_flux2_libero.sh` and `run_eval_flux2_libero_plus.sh`.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from imagewam_ros.benchmarks.trial import ChunkSource, Played
from imagewam_ros.core.errors import ConfigError, EmbodimentMismatch, unknown_name
from imagewam_ros.core.schema import Floats, Image, Observation

MAX_STEPS = {"libero_spatial": 400, "libero_object": 400, "libero_goal": 400, "libero_10": 700, "libero_90": 700}
"""The authors' limits after the wait, by suite."""
STAY = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)
STATE, ACTION = 8, 7
GRIPPERS = ("share", "env")
"""share: 0 closed to 1 open, as ImageWAM predicts. env: -1 open, 1 closed, as the simulator and openpi do."""


@dataclass(frozen=True)
class LiberoConfig:
    """How a trial goes: wait_steps of standing still, then chunks of which replan_steps are executed."""

    suite: str = "libero_spatial"
    wait_steps: int = 30
    replan_steps: int = 12
    resolution: int = 256
    gripper: str = "share"

    def __post_init__(self) -> None:
        if self.suite not in MAX_STEPS:
            raise ConfigError(unknown_name("suite", self.suite, MAX_STEPS))
        if self.gripper not in GRIPPERS:
            raise ConfigError(unknown_name("gripper", self.gripper, GRIPPERS))
        if self.wait_steps < 0 or self.replan_steps < 1:
            raise ConfigError(f"wait_steps must not be negative and replan_steps positive, found {self}")


class Libero:
    """One suite. With LIBERO-Plus installed in LIBERO's place its tasks are the perturbed ones."""

    def __init__(self, config: LiberoConfig | None = None) -> None:
        """Look for LIBERO. Raises ConfigError when it is not installed."""
        self.config = config or LiberoConfig()
        self.name = self.config.suite
        self.cameras: tuple[str, ...] = ("agentview", "wrist")
        self._library = _libero()
        self._suite = self._library.benchmark.get_benchmark_dict()[self.name]()
        self._categories = categories(Path(self._library.benchmark.__file__).parent, self.name)

    @property
    def perturbed(self) -> bool:
        """Whether this is LIBERO-Plus."""
        return bool(self._categories)

    def tasks(self) -> tuple[str, ...]:
        """Names of the suite's tasks."""
        return tuple(self._suite.get_task(i).name for i in range(self._suite.n_tasks))

    def play(self, task: str, source: ChunkSource, trials: int, seed: int) -> Iterator[Played]:
        """Play trial k from the suite's k-th initial state, beginning anew where there are fewer."""
        names = self.tasks()
        if task not in names:
            raise ConfigError(unknown_name("task", task, names))
        number = names.index(task)
        found, states = self._suite.get_task(number), self._suite.get_task_init_states(number)
        folder = Path(self._library.get_libero_path("bddl_files"))
        env = self._library.envs.OffScreenRenderEnv(
            bddl_file_name=str(folder / found.problem_folder / found.bddl_file),
            camera_heights=self.config.resolution,
            camera_widths=self.config.resolution,
        )
        try:
            env.seed(seed)
            for trial in range(trials):
                env.reset()
                seen = env.set_init_state(states[trial % len(states)])
                success, steps = self._run(env, seen, source, found.language, 1000 * (seed + trial))
                yield Played(task, trial, success, steps, found.language, self._categories.get(task, ""))
        finally:
            env.close()

    def _run(self, env: Any, seen: dict[str, Any], source: ChunkSource, text: str, seed: int) -> tuple[bool, int]:
        """One trial after the reset. Returns success and the steps after the wait."""
        done = False
        for _ in range(self.config.wait_steps):
            seen, _, done, _ = env.step(list(STAY))
        limit, steps = MAX_STEPS[self.name], 0
        while steps < limit and not done:
            chunk = source.infer(observation(seen, text, self.cameras), seed + steps)
            for row in chunk.positions[: min(self.config.replan_steps, limit - steps)]:
                seen, _, done, _ = env.step(to_env(row, self.config.gripper).tolist())
                steps += 1
                if done:
                    break
        return bool(done), steps


def observation(seen: dict[str, Any], instruction: str, cameras: tuple[str, ...]) -> Observation:
    """Return what a policy sees of LIBERO's map: both images turned by half a turn, and the state (8,).

    Raises EmbodimentMismatch naming what is missing.
    """
    keys = ("agentview_image", "robot0_eye_in_hand_image", "robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")
    missing = [key for key in keys if key not in seen]
    if missing:
        raise EmbodimentMismatch(f"LIBERO's observation has no {', '.join(missing)}; found {', '.join(sorted(seen))}")
    images: dict[str, Image] = {
        camera: np.ascontiguousarray(seen[key][::-1, ::-1]) for camera, key in zip(cameras, keys[:2], strict=True)
    }
    state = np.concatenate([seen["robot0_eef_pos"], axis_angle(seen["robot0_eef_quat"]), seen["robot0_gripper_qpos"]])
    return Observation(0, images, state, instruction)


def to_env(action: Floats, gripper: str) -> Floats:
    """Return the simulator's action (7,) for a policy's, its gripper rounded to open or closed."""
    if action.shape != (ACTION,):
        raise EmbodimentMismatch(f"LIBERO takes {ACTION} numbers, the policy gives {list(action.shape)}")
    turned = np.array(action)
    if gripper == "share":
        turned[-1] = np.sign(1.0 - 2.0 * action[-1])
    return turned


def axis_angle(quaternion: Floats) -> Floats:
    """Axis times angle in rad of a quaternion x y z w, the angle 0 to 2 pi, as robosuite does."""
    w = float(np.clip(quaternion[3], -1.0, 1.0))
    sine = math.sqrt(1.0 - w * w)
    if sine < 1e-9:
        return np.zeros(3)
    turned: Floats = np.asarray(quaternion[:3]) * 2.0 * math.acos(w) / sine
    return turned


def categories(folder: Path, suite: str) -> dict[str, str]:
    """Kind of perturbation of each task of LIBERO-Plus; empty for LIBERO.

    Source: LIBERO-Plus, libero/libero/benchmark/task_classification.json.
    """
    path = folder / "task_classification.json"
    if not path.exists():
        return {}
    return {entry["name"]: entry["category"] for entry in json.loads(path.read_text(encoding="utf8")).get(suite, [])}


def _libero() -> ModuleType:
    try:
        import libero.libero.benchmark
        import libero.libero.envs
    except ImportError as error:
        raise ConfigError(f"LIBERO cannot be imported ({error}); docs/evaluation.md says how to install it") from error
    module: ModuleType = libero.libero
    return module
