# SPDX-License-Identifier: Apache-2.0
"""Trials side by side: in this process, in several on this machine, or on the machines of a Ray cluster.

The result does not depend on where a trial ran: everything random in it comes from its seed.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.data.workers import side_by_side
from imagewam_ros.evaluation.drivers import MEAN_OF, WITHOUT_POLICY, make_driver, mean_demonstration
from imagewam_ros.evaluation.source import open_source
from imagewam_ros.evaluation.trial import Outcome, TrialConfig, run_trial
from imagewam_ros.record import FIRST_SEED
from imagewam_ros.sim.cell import Cell

if TYPE_CHECKING:
    from imagewam_ros.core.schema import Floats
    from imagewam_ros.evaluation.source import Source

THIS_MACHINE = "local"
"""Address of a cluster that is started for the evaluation alone."""
RAY_BEYOND_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Read by Ray on Linux too, when it is imported: 0 keeps it on loopback. An address given to ray.init would not."""


class Setting(NamedTuple):
    """What all trials of one evaluation share. policy is a name, a directory or an address."""

    policy: str
    task: str
    robot: str
    config: TrialConfig


class Job(NamedTuple):
    """One trial."""

    condition: str
    seed: int


class Worker:
    """What one process keeps from trial to trial. From here on it computes on one thread, so that trials repeat."""

    def __init__(self, setting: Setting) -> None:
        import torch

        torch.set_num_threads(1)
        self._setting = setting
        self._cell = Cell(load_embodiment(setting.robot), setting.task)
        self._source: Source | None = None
        self._mean: Floats | None = None

    def play(self, job: Job, watch: Callable[[Cell], None] | None = None) -> Outcome:
        """Run one trial; `watch` is called at every frame and may render."""
        setting, condition = self._setting, job.condition
        if condition not in WITHOUT_POLICY:
            self._source = self._source or open_source(setting.policy, self._cell.embodiment)
        if condition == "blind" and self._mean is None:
            self._mean = mean_demonstration(self._cell, range(FIRST_SEED, FIRST_SEED + MEAN_OF))
        driver = make_driver(condition, self._source, self._mean)
        return run_trial(self._cell, driver, condition, job.seed, setting.config, watch)

    def close(self) -> None:
        """Give up the simulator."""
        self._cell.close()


def play(jobs: Sequence[Job], setting: Setting, workers: int, cluster: str = "") -> Iterator[Outcome]:
    """Yield the outcomes as they come. `cluster` is the address of a Ray cluster, empty for this machine alone.

    Raises EpisodeError when a process of this machine dies.
    """
    workers = min(workers, len(jobs))
    if cluster:
        yield from _play_on_cluster(jobs, setting, workers, cluster)
    else:
        yield from side_by_side(Worker(setting).play if workers < 2 else partial(_one, setting), jobs, workers)


def _play_on_cluster(jobs: Sequence[Job], setting: Setting, workers: int, cluster: str) -> Iterator[Outcome]:
    """One actor per worker, one CPU each. Every machine needs this package and the checkpoint at the same path."""
    if cluster == THIS_MACHINE:
        os.environ[RAY_BEYOND_LOOPBACK] = "0"
    ray = _ray()
    try:
        ray.init(address=cluster, num_cpus=workers if cluster == THIS_MACHINE else None, include_dashboard=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"no Ray cluster at {cluster!r}: {error}; start one with `ray start --head`, or give --cluster local"
        ) from error
    try:
        actors = [ray.remote(Worker).options(num_cpus=1).remote(setting) for _ in range(workers)]
        pool = ray.util.ActorPool(actors)
        yield from pool.map_unordered(lambda actor, job: actor.play.remote(job), jobs)
    finally:
        ray.shutdown()


def _ray() -> ModuleType:
    try:
        import ray
        import ray.util
    except ImportError as error:
        raise ConfigError(
            "--cluster needs Ray, which cannot be imported; pip install -r requirements/cluster.txt"
        ) from error
    module: ModuleType = ray
    return module


_worker: list[Worker] = []
"""What a process of side_by_side keeps; it serves one setting."""


def _one(setting: Setting, job: Job) -> Outcome:
    if not _worker:
        _worker.append(Worker(setting))
    return _worker[0].play(job)
