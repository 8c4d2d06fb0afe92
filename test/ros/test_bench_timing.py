# SPDX-License-Identifier: Apache-2.0
"""The timing of the real node is measured, and a tick keeps nothing. What the figures are is the machine's matter."""

import json
import os
import subprocess
import sys

import pytest

from imagewam_ros.bench_timing import COUNTED_TICKS


@pytest.mark.parametrize(("output", "more"), [("trajectory", ()), ("forward", ("--guarded",))])
def test_the_real_node_is_timed_beside_an_empty_loop(output: str, more: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "imagewam_ros", "bench", "executor", "--timing", "--seconds", "2"]
    command += ["--output", output, *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().splitlines()
    assert lines[0].split() == ["period,", "ms", "p50", "p99", "max", "p50", "off", "by"]
    assert lines[1].startswith("executor node") and lines[2].startswith("empty loop beside it")
    found = json.loads(lines[-1])
    assert (found["rate_hz"], found["output"], found["guarded"]) == (200.0, output, bool(more))
    assert ("the node, guarded, took" in done.stdout) == bool(more)
    assert found["ticks"] >= 10
    assert 0 < found["cpu_share"] <= 1.5
    for key in ("period_ms", "empty_loop_period_ms"):
        assert 0 < found[key]["p50"] <= found[key]["p99"] <= found[key]["max"]


def test_no_time_is_a_mistake() -> None:
    command = [sys.executable, "-m", "imagewam_ros", "bench", "executor", "--timing", "--seconds", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ)
    assert done.returncode == 2
    assert "--seconds must be positive, found 0.0; try --seconds 20" in done.stderr


def test_a_tick_allocates_little_and_keeps_nothing() -> None:
    counted = "import json, sys; from imagewam_ros.bench_timing import allocations as count; "
    counted += "from imagewam_ros.core.embodiment import load_embodiment as load; "
    counted += "json.dump(count(load('sim_cell'), seed=0), sys.stdout)"
    # a process of its own: what other threads of this one allocate would be counted
    done = subprocess.run([sys.executable, "-c", counted], capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["transient_bytes"]["max"] < 64_000
    assert abs(found["kept_bytes"]) < 20 * COUNTED_TICKS
