# SPDX-License-Identifier: Apache-2.0
"""`imagewam bench executor --timing`: the real executor node at its rate, beside a loop that does nothing.

The node runs in its own process with its outputs published; this process plays drivers, controllers
and policy. The empty loop waits for the same absolute deadlines in a third process at the same time, so
that both see the same machine. Allocations are counted in this process, on the executor without ROS.
"""

import argparse
import gc
import multiprocessing
import os
import time
import tracemalloc
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from imagewam_ros.control import tracking
from imagewam_ros.control.executor import Executor
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import GraphError
from imagewam_ros.core.schema import ActionChunk, Floats, JointState
from imagewam_ros.domain import private_domain, use_domain
from imagewam_ros.graph import Death, Process, settings
from imagewam_ros.processor_time import busy_s
from imagewam_ros.supervisor import Interrupts, Supervisor

PATIENCE_S = 60.0
SETTLE_S = 2.0
"""Not measured: the first chunks make caches and buffers."""

COUNTED_TICKS, CHUNK_EVERY = 600, 80
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def measure(robot: Embodiment, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the node for --seconds and return the figures. Raises GraphError when it does not come up."""
    from imagewam_ros.nodes.timing_load import TimingLoad

    with private_domain() as domain:
        use_domain(domain)
        parameters = {
            "robot": arguments.robot,
            "output": arguments.output,
            "guarded": arguments.guarded,
            "fifo_priority": arguments.fifo_priority,
            "cpu": arguments.cpu,
        }
        processes = (
            Process("executor", "executor_node", Death.ENDS_GRAPH, parameters),
            Process("bringup", "bringup_node", Death.FAILURE_ENDS_GRAPH, {"nodes": ("executor",)}),
        )
        load = TimingLoad(robot, arguments.seed)
        try:
            found = _run(processes, load, robot.period_ns, arguments)
        finally:
            load.close()
    return {
        "robot": robot.name,
        "rate_hz": robot.control_rate_hz,
        "output": arguments.output,
        "fifo_priority": arguments.fifo_priority,
        "guarded": arguments.guarded,
        **found,
        **allocations(robot, arguments.seed),
    }


def table(found: Mapping[str, Any]) -> str:
    """Return the figures for a person."""
    guarded = "guarded" if found["guarded"] else "without its guard"
    lines = [f"{'period, ms':<22}{'p50':>9}{'p99':>9}{'max':>9}{'p50 off by':>12}"]
    for name, key in (("executor node", "period_ms"), ("empty loop beside it", "empty_loop_period_ms")):
        figures = found[key]
        off = figures["p50"] * found["rate_hz"] / 1e3 - 1
        lines.append(f"{name:<22}{figures['p50']:>9.3f}{figures['p99']:>9.3f}{figures['max']:>9.3f}{off:>12.2%}")
    lines.append(
        f"{found['ticks']} ticks in {found['seconds']:.1f} s, {found['late_ticks']} late; the node, {guarded}, took "
        f"{found['cpu_share']:.1%} of one core (load average {found['load_average']:.1f} on {found['cpu_cores']} cores)"
    )
    bytes_ = found["transient_bytes"]
    lines.append(
        f"allocations of one tick: p50 {bytes_['p50']:.0f}, max {bytes_['max']:.0f} bytes at a time; kept after "
        f"{COUNTED_TICKS} ticks: {found['kept_bytes']} bytes; the node's memory grew by {found['memory_growth_kb']} kB"
    )
    return "\n".join(lines)


def _run(processes: tuple[Process, ...], load: Any, period_ns: int, arguments: argparse.Namespace) -> dict[str, Any]:
    lines: list[tuple[str, str]] = []
    with Interrupts() as interrupts, Supervisor(processes, settings({}), lambda *line: lines.append(line)) as graph:

        def wait(seconds: float, done: Callable[[], bool] = lambda: False) -> None:
            end_s = time.monotonic() + seconds
            while time.monotonic() < end_s and not done():
                if interrupts.received:
                    raise KeyboardInterrupt
                if any(exit.ends_graph for exit in graph.poll()):
                    raise GraphError("the executor ended:\n" + "\n".join(": ".join(line) for line in lines[-12:]))
                time.sleep(0.05)

        wait(PATIENCE_S, lambda: load.ready)
        if not load.ready:
            raise GraphError("the executor did not come up:\n" + "\n".join(": ".join(line) for line in lines[-12:]))
        load.begin()
        wait(SETTLE_S)
        ours, theirs = multiprocessing.Pipe(duplex=False)
        context = multiprocessing.get_context("spawn")
        empty = context.Process(target=empty_loop, args=(theirs, period_ns, arguments.seconds), daemon=True)
        empty.start()
        pid, first = graph.alive["executor"], len(load.sent_ns)
        late, began_s, busy, memory = load.status.late_ticks, time.monotonic(), busy_s(pid), _resident_kb(pid)
        wait(arguments.seconds)
        elapsed_s, spent_s, grown = time.monotonic() - began_s, busy_s(pid) - busy, _resident_kb(pid) - memory
        sent, late = np.diff(load.sent_ns[first:]), load.status.late_ticks - late
        load_average = os.getloadavg()[0]
        if not ours.poll(PATIENCE_S):
            raise GraphError("the empty loop did not end; is the machine overloaded?")
        beside = np.array(ours.recv())
    return {
        "seconds": round(elapsed_s, 3),
        "ticks": int(sent.size),
        "late_ticks": int(late),
        "period_ms": _percentiles(sent / 1e6),
        "empty_loop_period_ms": _percentiles(beside / 1e6),
        "cpu_share": round(spent_s / elapsed_s, 4),
        "memory_growth_kb": grown,
        "load_average": load_average,
        "cpu_cores": os.cpu_count(),
    }


def empty_loop(out: Connection, period_ns: int, seconds: float) -> None:
    """Wait for absolute deadlines and do nothing; send the times between wake-ups, ns."""
    woken, deadline_ns = [time.monotonic_ns()], time.monotonic_ns()
    for _ in range(round(seconds * 1e9 / period_ns)):
        deadline_ns += period_ns
        remaining_ns = deadline_ns - time.monotonic_ns()
        if remaining_ns > 0:
            time.sleep(remaining_ns / 1e9)
        woken.append(time.monotonic_ns())
    out.send(np.diff(woken).tolist())


def allocations(robot: Embodiment, seed: int) -> dict[str, Any]:
    """Bytes that one tick allocates at a time, and what is still there after many."""
    rng = np.random.default_rng(seed)
    trajectory, executor = tracking.smooth(robot, rng, 0.5), Executor(robot)
    start = trajectory.at(np.zeros(1))[0]
    executor.activate(0, JointState(0, robot.joint_names, start, np.zeros(start.size)))

    def play(peaks: "np.ndarray[Any, Any]") -> None:
        for tick in range(peaks.size):
            now_ns = executor.next_ns
            if tick % CHUNK_EVERY == 0:
                times_s = now_ns * 1e-9 + np.arange(1.0, 17.0) * 0.05
                rows: Floats = trajectory.at(times_s) + np.where(robot.gripper_mask, 0, rng.normal(0, 2e-3, start.size))
                executor.accept(ActionChunk(now_ns, 50_000_000, robot.joint_names, rows), now_ns)
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            executor.step(now_ns)
            peaks[tick] = tracemalloc.get_traced_memory()[1] - before

    tracemalloc.start()
    try:
        play(np.zeros(2 * 1024))  # longer than anything is remembered
        peaks = np.zeros(COUNTED_TICKS)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        play(peaks)
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    return {"transient_bytes": _percentiles(peaks), "kept_bytes": int(kept)}


def _percentiles(values: "np.ndarray[Any, Any]") -> dict[str, float]:
    names, shares = ("p50", "p99", "max"), (0.5, 0.99, 1.0)
    return {name: round(float(value), 4) for name, value in zip(names, np.quantile(values, shares), strict=True)}


def _resident_kb(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES // 1024
