# SPDX-License-Identifier: Apache-2.0
"""Where a trial runs changes nothing."""

import os
import signal
import sys
from importlib.util import find_spec
from multiprocessing import active_children

import pytest

from imagewam_ros.core.errors import ConfigError, EpisodeError
from imagewam_ros.evaluation.trial import TrialConfig
from imagewam_ros.evaluation.workers import Job, Setting, play

SETTING = Setting("tiny", "tray_lift", "sim_cell", TrialConfig())
JOBS = [Job("left_only", 1000), Job("right_only", 1001), Job("left_only", 1002)]


def outcomes(workers: int, cluster: str = "") -> list:
    return sorted(play(JOBS, SETTING, workers, cluster), key=lambda outcome: outcome.seed)


def test_several_processes_find_what_one_finds_until_they_are_killed() -> None:
    wanted, playing = outcomes(1), play(10 * JOBS, SETTING, 2)
    assert [next(playing) for _ in JOBS] == wanted
    for process in active_children():
        os.kill(process.pid or 0, signal.SIGKILL)
    with pytest.raises(EpisodeError, match="one of 2 processes died"):
        list(playing)


@pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray, requirements/cluster.txt")
@pytest.mark.slow
def test_a_cluster_finds_what_one_process_finds() -> None:
    assert "ray" not in sys.modules, "where Ray listens is settled when it is imported"
    playing = play(JOBS, SETTING, 2, "local")
    found = [next(playing)]
    import ray

    assert {node["NodeManagerAddress"] for node in ray.nodes()} == {"127.0.0.1"}
    found += playing
    assert sorted(found, key=lambda outcome: outcome.seed) == outcomes(1)


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed here")
def test_an_absent_ray_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"--cluster needs Ray, which cannot be imported; pip install -r requirements/cluster.txt"
    ):
        outcomes(2, "auto")


@pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray, requirements/cluster.txt")
def test_an_absent_cluster_is_named() -> None:
    with pytest.raises(ConfigError, match="no Ray cluster at 'auto'"):
        outcomes(2, "auto")
