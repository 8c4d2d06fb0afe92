# SPDX-License-Identifier: Apache-2.0
"""Skip what this machine cannot run; draw the same numbers in any order; make records of episodes."""

import gc
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import settings

from imagewam_ros.demo_record import Chunks, EpisodeRecord, Measured, Sent

PERIOD_NS = 5_000_000

# The same examples on every machine and day, without a limit of time per example, which a busy machine would miss.
settings.register_profile("steady", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("steady")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not cuda_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Seed torch for fixtures and test: which tests ran before in this process differs from run to run."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


def cuda_available() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture
def uncollected() -> Iterator[None]:
    """No collection of what other tests of this process left takes CPU while it is measured."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def make_record() -> Callable[..., EpisodeRecord]:
    def make(seed: int = 3, ticks: int = 101, *, success: bool = True) -> EpisodeRecord:
        """Two joints, every tick sent on time but one that is 2 ms late, 21 chunks 100 ms after their images."""
        tick = np.arange(ticks)
        nominal = 10**9 + tick * PERIOD_NS
        sent = nominal.copy()
        sent[ticks // 2] += 2_000_000
        angle = np.stack([np.sin(tick / 50), np.cos(tick / 50)], axis=1)
        stamps = np.arange(21) * 50_000_000
        return EpisodeRecord(
            seed=seed,
            instruction="lift the tray",
            success=success,
            episode_s=9.8,
            wall_s=10.0,
            period_ns=PERIOD_NS,
            joint_names=("a", "b"),
            limited_ticks=4,
            refused_chunks=1,
            camera_hz={"head": 19.8, "left_wrist": 18.0},
            sent=Sent(tick, nominal, sent, angle, 0 * angle, 0 * angle),
            measured=Measured(nominal, angle),
            chunks=Chunks(stamps, stamps + 100_000_000, np.linspace(0.05, 0.09, 21)),
        )

    return make
