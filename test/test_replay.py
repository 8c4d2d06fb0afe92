# SPDX-License-Identifier: Apache-2.0
"""A recorded run played again: identical with the same parameters, and the first difference named otherwise."""

import argparse
import dataclasses
import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from run_bag import START_NS, RunBag

from imagewam_ros import replay
from imagewam_ros.control.executor import ExecutorConfig
from imagewam_ros.control.guard import Guard
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError, EmbodimentMismatch, EpisodeError
from imagewam_ros.core.schema import Source
from imagewam_ros.data.run_log import read_run
from imagewam_ros.kinematics.description import describe
from imagewam_ros.replay_commands import compare, recording

ROBOT = load_embodiment("sim_cell")
CROSSFADE = ExecutorConfig(rule="crossfade")
"""The rule whose rows depend on the very nanosecond of a chunk's arrival."""


def call(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    replay.add_arguments(parser)
    return replay.run(parser.parse_args([str(argument) for argument in arguments]))


def last_line(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return RunBag(ROBOT, CROSSFADE).write(tmp_path_factory.mktemp("bags") / "run")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def make(*leave_out: str, **options: object) -> Path:
        return RunBag(ROBOT, ExecutorConfig(), leave_out).write(tmp_path / "run", **options)

    return make


def test_a_bag_is_read_as_it_was_written(bag: Path) -> None:
    log = read_run(bag)
    assert (log.robot, log.parameters["control"]["rule"]) == ("sim_cell", "crossfade")
    assert len(log.chunks) == len([e for e in log.events if e.chunk]) == 5
    assert log.events[0].chunk == (Source.POLICY, log.chunks[0].chunk.sequence)
    assert log.chunks[0].chunk.positions.shape == (16, 14)
    assert len(log.commands) > 400
    assert log.joints[0].names == ROBOT.joint_names


def test_the_same_parameters_give_the_same_commands(bag: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(bag, "--no-sweep", "--json") == 0
    shown = capsys.readouterr().out
    assert "5 chunks (5 accepted, 0 refused)" in shown
    assert "parameters recorded" in shown
    assert "identical bit for bit" in shown
    result = json.loads(shown.strip().splitlines()[-1])
    assert (result["diverged"], result["first_divergence"], result["largest_difference"]) == (False, None, 0.0)
    assert result["compared"] == result["commands"] - 1


def test_another_parameter_diverges_at_the_first_chunk(bag: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(bag, "--no-sweep", "--set", "smoothing_hz:=2.5", "--json") == 1
    shown = capsys.readouterr().out
    assert "first divergence at tick" in shown
    assert "before it: chunk 0 of policy accepted after tick" in shown
    first = json.loads(shown.strip().splitlines()[-1])["first_divergence"]
    accepted = read_run(bag).events[0].tick
    assert accepted < first["tick"] <= accepted + 20
    assert first["stamp_ns"] > START_NS


def test_one_changed_command_is_found(write: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(nudge=(300, 1e-3))
    assert call(folder, "--no-sweep", "--json") == 1
    first = last_line(capsys)["first_divergence"]
    assert (first["tick"], first["joint"], first["quantity"]) == (300, ROBOT.joint_names[3], "position")
    assert first["recorded"] - first["played"] == pytest.approx(1e-3)
    assert call(folder, "--no-sweep", "--tolerance", "0.01") == 0


def test_holds_are_repeated(write: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(hold_s=1.0)
    assert call(folder, "--no-sweep", "--json") == 0
    shown = capsys.readouterr().out
    assert "refused)" in shown and " 0 refused" not in shown
    assert json.loads(shown.strip().splitlines()[-1])["largest_difference"] == 0.0


def test_a_fault_of_the_watchdogs_is_repeated(write: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(stray_s=1.2)
    log = read_run(folder)
    assert [(e.trigger, e.state) for e in log.events if e.chunk is None] == [("watchdog", 3)]
    assert not log.commands[-1].velocity.any()
    assert call(folder, "--no-sweep", "--json") == 0
    assert last_line(capsys)["largest_difference"] == 0.0


def test_a_clock_that_was_set_is_set_again(write: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    log = read_run(folder := write(set_s=1.2))
    gaps = {(b.tick - a.tick, (b.nominal_ns - a.nominal_ns) // a.period_ns) for a, b in pairwise(log.commands)}
    assert (1, 9) in gaps and (2, 6) in gaps, "one clock that was set, and late ticks that leave periods out"
    assert call(folder, "--no-sweep", "--json") == 0
    assert last_line(capsys)["largest_difference"] == 0.0


def test_a_guarded_run_is_guarded_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guard = Guard(ROBOT, describe(ROBOT))
    folder = RunBag(ROBOT, ExecutorConfig(), guard=guard).write(tmp_path / "run", seconds=1.2)
    assert call(folder, "--no-sweep", "--json") == 0
    assert last_line(capsys)["largest_difference"] == 0.0
    log = read_run(folder)
    unguarded = dataclasses.replace(log, parameters={**log.parameters, "guarded": False})
    assert compare(unguarded, ROBOT, ExecutorConfig(), 1e-6).diverged, "the guard had something to do"


def test_without_events_the_recorders_times_are_taken(
    write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write("executor/event")
    call(folder, "--no-sweep", "--tolerance", "0.1")
    shown = capsys.readouterr().out
    assert "verdicts not recorded" in shown
    assert "which may be a tick off" in shown


def test_a_chunk_that_was_not_recorded_ends_the_comparison(
    write: Callable[..., Path],
) -> None:
    log = read_run(write())
    lost = log.chunks[2].chunk.sequence
    short = tuple(heard for heard in log.chunks if heard.chunk.sequence != lost)
    found = compare(dataclasses.replace(log, chunks=short), ROBOT, ExecutorConfig(), 1e-9)
    assert not found.diverged
    assert f"chunk {lost} was not recorded" in str(found)
    assert found.compared < len(log.commands) - 1


def test_chunks_alone_are_swept_from_where_the_joints_were(
    write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write("executor/command", "executor/event", "executor/parameters", seconds=2.0)
    with pytest.raises(ConfigError, match="does not say which robot it is of; name it with --robot"):
        call(folder)
    played = recording(read_run(folder), ROBOT)
    np.testing.assert_array_equal(played.start, read_run(folder).joints[0].position)
    assert call(folder, "--robot", "sim_cell", "--json") == 0
    shown = capsys.readouterr().out
    assert "commands: none were recorded" in shown
    assert "of 27 settings" in shown and "as recorded" in shown
    result = json.loads(shown.strip().splitlines()[-1])
    assert result["settings"] == 27
    assert result["recommendation"]["rule"] in ("ensemble", "latest", "crossfade")
    assert 0.5 < result["recommendation"]["travel"] < 1.2


def test_chunks_alone_without_joints_can_not_be_played(write: Callable[..., Path]) -> None:
    folder = write("executor/command", "joint_states")
    with pytest.raises(ConfigError, match="neither commands nor joint states of left_"):
        call(folder)


def test_a_bag_without_chunks_is_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="holds no chunks; was policy/action_chunk recorded"):
        call(write("policy/action_chunk"))


def test_another_robot_is_refused(bag: Path) -> None:
    with pytest.raises(EmbodimentMismatch, match="commands for 14 joints every 5 ms, robot 'fr3' has 16 and 5 ms"):
        call(bag, "--robot", "fr3", "--no-sweep")


def test_what_is_no_bag_is_refused(bag: Path, tmp_path: Path) -> None:
    with pytest.raises(EpisodeError, match=r"no bag at .*: it has no metadata.yaml; check the path"):
        call(tmp_path / "nothing")
    broken = tmp_path / "broken"
    shutil.copytree(bag, broken)
    next(broken.glob("*.mcap")).write_bytes(b"not an mcap file")
    with pytest.raises(EpisodeError, match="is damaged: "):
        call(broken)


def test_wrong_parameters_are_refused(bag: Path) -> None:
    with pytest.raises(ConfigError, match="--set 'rule': expected name:=value, for example rule:=latest"):
        call(bag, "--set", "rule")
    with pytest.raises(ConfigError, match="unknown key 'smoothing'; did you mean 'smoothing_hz'"):
        call(bag, "--set", "smoothing:=3")


def test_a_namespace_is_a_whole_name(bag: Path) -> None:
    assert read_run(bag, "/").commands
    assert not read_run(bag, "exec").commands
