# SPDX-License-Identifier: Apache-2.0
"""The one thread that the policy runs on, from loading to the last chunk."""

import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import LimitViolation
from imagewam_ros.core.paths import find_checkpoint
from imagewam_ros.core.schema import ActionChunk, Observation
from imagewam_ros.model.device import choose_device
from imagewam_ros.model.sampler import SamplerConfig
from imagewam_ros.policy import Policy

T = TypeVar("T")


class InferenceThread:
    """Make a policy with `load`, and infer one observation at a time. Raises what `load` raises."""

    def __init__(self, load: Callable[[], Policy]) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="inference")
        self._pending: Future[None] | None = None
        self.policy = self._pool.submit(load).result()

    @property
    def busy(self) -> bool:
        """Whether an inference runs or has ended without `outcome` being asked for."""
        return self._pending is not None

    def instruct(self, text: str, wake: Callable[[], None]) -> "Future[None]":
        """Encode an instruction after what is running, and rehearse it; `wake` is called at the end."""
        encoded = self._pool.submit(self.policy.rehearse, text)
        encoded.add_done_callback(lambda _: wake())
        return encoded

    def infer(
        self,
        observation: Observation,
        seed: int,
        take: Callable[[ActionChunk], None],
        wake: Callable[[], None],
        running: ActionChunk | None = None,
        delay_ns: int = 0,
    ) -> None:
        """Infer in the background: `take` gets the chunk on this thread, `wake` is called at the end.

        running and delay_ns as in `Policy.infer`.
        """
        self._pending = self._pool.submit(
            lambda: take(self.policy.infer(observation, seed, running=running, delay_ns=delay_ns))
        )
        self._pending.add_done_callback(lambda _: wake())

    def submit(self, work: Callable[[], T]) -> "Future[T]":
        """Do a piece of other work after what is running."""
        return self._pool.submit(work)

    def settle(self) -> None:
        """Wait until nothing runs."""
        self._pool.submit(lambda: None).result()

    def outcome(self) -> str:
        """Wait for the running inference; why it failed, or nothing."""
        ended, self._pending = self._pending, None
        error = ended.exception() if ended is not None else None
        return f"inference failed: {type(error).__name__}: {error}" if error is not None else ""

    def close(self) -> None:
        """End the thread after what it is doing."""
        self._pool.shutdown()


def load_policy(
    checkpoint: str,
    robot: Embodiment,
    device: str,
    cpu_threads: int,
    sampling: SamplerConfig | None = None,
    weights: str = "full",
    instruction: str = "",
    release_text: bool = False,
) -> Policy:
    """Load a checkpoint for `robot` and infer of `instruction`, so that the first chunk is no slower than the others.

    Raises CheckpointError, ConfigError and EmbodimentMismatch.
    """
    if cpu_threads:
        torch.set_num_threads(cpu_threads)
    path, where = find_checkpoint(checkpoint), choose_device(device)
    policy = Policy.load(path, robot, where, sampling, weights, release_text)
    warm_up(policy, robot, instruction)
    return policy


def warm_up(policy: Policy, robot: Embodiment, instruction: str = "") -> None:
    """Rehearse, then infer from grey images. What a policy of tool poses says of them may lie out of reach.

    Without an instruction a stand-in is used.
    """
    text = instruction or "warm up"
    policy.rehearse(text)
    cameras = [robot.camera(name) for name in policy.contract.camera_names]
    grey = {c.name: np.full((c.height, c.width, 3), 128, dtype=np.uint8) for c in cameras}
    with contextlib.suppress(LimitViolation):
        policy.infer(Observation(0, grey, (robot.limits.lower + robot.limits.upper) / 2, instruction=text))
