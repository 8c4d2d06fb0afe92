# SPDX-License-Identifier: Apache-2.0
"""Recorded chunks sent to the running cell; and what a cell publishes, played again bit for bit."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from run_bag import RunBag
from std_srvs.srv import Trigger

from imagewam_ros.control.executor import ExecutorConfig
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.schema import ActionChunk, Source
from imagewam_ros.data.run_log import Event, Heard, RunLog
from imagewam_ros.msg import ActionChunk as ActionChunkMsg
from imagewam_ros.msg import ExecutorEvent, ExecutorStatus
from imagewam_ros.nodes import messages, qos, topics
from imagewam_ros.nodes.replay_node import that_moved
from imagewam_ros.replay_commands import compare

ROBOT = load_embodiment("sim_cell")


def command(folder, *more: str) -> list[str]:
    return [sys.executable, "-m", "imagewam_ros", "replay", str(folder), "--robot", "sim_cell", "--live", *more]


def replay(folder, *more: str) -> subprocess.CompletedProcess:
    return subprocess.run(command(folder, *more), capture_output=True, text=True, timeout=180, env=os.environ)


def test_recorded_chunks_move_the_running_cell(cell, tmp_path) -> None:
    running, bag = cell(), RunBag(ROBOT, ExecutorConfig())
    running.activate()
    target = running.lean(0.25)
    first = dataclasses.replace(running.chunk(target), stamp_ns=10**18)
    second = dataclasses.replace(first, stamp_ns=10**18 + 400_000_000, sequence=2, positions=np.tile(target, (16, 1)))
    for chunk in (first, second):
        bag.put("policy/action_chunk", chunk.stamp_ns + 50_000_000, bag.chunk(chunk))
    done = replay(bag.save(tmp_path / "run"), "--use-sim-time")
    assert "2 chunks sent, 2 accepted, 0 refused" in done.stdout, done.stderr
    assert done.returncode == 0
    running.wait(lambda s: s.source == ActionChunkMsg.SOURCE_REPLAY)
    assert running.probe.until(lambda: np.abs(running.position - target)[[0, 7]].max() < 0.03), running.position
    running.check_limits()


def test_teleoperation_outranks_a_replay(cell, tmp_path) -> None:
    running, bag = cell(control__commander_timeout_s=60.0), RunBag(ROBOT, ExecutorConfig())
    running.activate()
    running.send(dataclasses.replace(running.chunk(running.lean(0.1)), source=Source.TELEOP))
    running.wait(lambda s: s.accepted == 1)
    bag.put(
        "policy/action_chunk", 10**18, bag.chunk(dataclasses.replace(running.chunk(running.position), stamp_ns=10**18))
    )
    done = replay(bag.save(tmp_path / "run"), "--use-sim-time")
    assert "refused: replay is refused: teleop commands the left arm and has priority" in done.stderr
    assert done.returncode == 1


def heard(stamp_s: int, sequence: int, source: Source = Source.POLICY) -> Heard:
    names, period_ns = ROBOT.joint_names, 50_000_000
    chunk = ActionChunk(stamp_s * 10**9, period_ns, names, np.zeros((2, len(names))), sequence=sequence, source=source)
    return Heard(chunk.stamp_ns + 100_000_000, chunk)


def verdict(of: Heard, trigger: str) -> Event:
    return Event(of.log_ns, 7, trigger, ExecutorStatus.ACTIVE, "", (of.chunk.source, of.chunk.sequence))


def test_only_what_moved_the_arms_is_sent() -> None:
    """The policy started again, so its number 1 comes twice, and a human's number 1 between."""
    first, human, again, last = heard(1, 1), heard(5, 1, Source.TELEOP), heard(9, 1), heard(10, 2)
    told = ((first, "accepted"), (human, "accepted"), (again, "refused"), (last, "accepted"))
    chunks = (first, human, again, last)
    log = RunLog(Path("bag"), chunks, (), tuple(verdict(*one) for one in told), ())
    assert sorted(one.log_ns for one in that_moved(log)) == [one.log_ns for one in (first, human, last)]
    assert that_moved(dataclasses.replace(log, events=())) == list(chunks), "nobody knows what was refused"
    watched = dataclasses.replace(log, events=(), parameters={"shadow": True})
    assert that_moved(watched) == [human]
    held = dataclasses.replace(log, events=(verdict(first, "refused"),))
    with pytest.raises(ConfigError, match="bag: none of its chunks moved the arms, so there is nothing to replay"):
        that_moved(held)


def test_a_number_that_comes_twice_counts_twice(cell, tmp_path) -> None:
    running, bag = cell(), RunBag(ROBOT, ExecutorConfig())
    running.activate()
    first = dataclasses.replace(running.chunk(running.lean(0.05)), stamp_ns=10**18)
    again = dataclasses.replace(first, stamp_ns=10**18 + 400_000_000)
    refused = dataclasses.replace(again, stamp_ns=10**18 + 500_000_000, sequence=2)
    for chunk, trigger in ((first, "accepted"), (again, "accepted"), (refused, "refused")):
        at_ns = chunk.stamp_ns + 50_000_000
        bag.put("policy/action_chunk", at_ns, bag.chunk(chunk))
        bag.put("executor/event", at_ns, bag.event(at_ns, 7, trigger, "", chunk))
    done = replay(bag.save(tmp_path / "run"), "--use-sim-time")
    assert "2 chunks sent, 2 accepted, 0 refused" in done.stdout, done.stderr
    assert done.returncode == 0


@pytest.mark.usefixtures("domain")
def test_without_a_cell_it_says_so(tmp_path) -> None:
    bag = RunBag(ROBOT, ExecutorConfig()).write(tmp_path / "run", seconds=0.7)
    clocks = ((), ("--use-sim-time",))
    both = [subprocess.Popen(command(bag, *clock), stderr=subprocess.PIPE, text=True) for clock in clocks]
    for process in both:
        said = process.communicate(timeout=180)[1]
        assert process.returncode == 2
        assert "cannot replay: no executor tells its status; start the cell" in said


def test_what_a_running_executor_published_is_played_again_bit_for_bit(cell) -> None:
    running = cell()
    chunks = running.probe.collect(ActionChunkMsg, topics.CHUNK, qos.CHUNKS_IN)
    events = running.probe.collect(ExecutorEvent, topics.EVENT, qos.COMMAND_LOG)
    running.probe.meet("executor")
    running.activate()
    assert running.probe.until(lambda: len(running.logged) > 20)
    for angle in (0.3, -0.2):
        running.send(running.chunk(running.lean(angle)))
        running.wait(lambda s: s.state == ExecutorStatus.ACTIVE and s.sequence == running.sequence)
        running.wait_for_speed(0.2)
    running.probe.call(Trigger, topics.HOLD, Trigger.Request(), once=True)
    running.send(running.chunk(running.lean(0.1)))
    running.wait(lambda s: "is on hold" in s.refusal)
    running.probe.call(Trigger, topics.RESUME, Trigger.Request(), once=True)
    running.send(running.chunk(running.lean(0.1)))
    running.wait(lambda s: s.accepted == 3)
    assert running.probe.change("executor", "deactivate"), running.executor.text()
    ended = running.wait(lambda s: s.state == ExecutorStatus.INACTIVE)
    assert running.probe.until(lambda: running.logged[-1].tick >= ended.tick), (running.logged[-1], ended)
    assert running.probe.until(lambda: events[-1].state == ended.state), events[-3:]
    told = [event.trigger for event in events]
    assert told[:2] == ["configure", "activate"]
    assert [name for name in told if name in ("accepted", "refused", "hold", "resume", "deactivate")] == [
        "accepted", "accepted", "hold", "refused", "resume", "accepted", "deactivate",
    ]  # fmt: skip
    log = RunLog(
        directory=running.executor.log,
        chunks=tuple(Heard(0, messages.to_chunk(message)) for message in chunks),
        commands=tuple(running.commands),
        events=tuple(to_event(message) for message in events),
        joints=(),
    )
    found = compare(log, ROBOT, running.control, 0.0)
    assert not found.diverged, str(found)
    assert found.largest == 0.0
    assert "ends at tick" in found.ends and "deactivate" in found.ends


def to_event(message: ExecutorEvent) -> Event:
    chunk = None if message.source == ExecutorEvent.NO_CHUNK else (Source(message.source), message.sequence)
    stamp_ns = messages.stamp_ns(message.header.stamp)
    return Event(stamp_ns, message.tick, message.trigger, message.state, message.reason, chunk)
