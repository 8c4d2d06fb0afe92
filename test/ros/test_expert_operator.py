# SPDX-License-Identifier: Apache-2.0
"""The scripted expert moves the arms of a graph as a human operator would, and takes over as one."""

from pathlib import Path

import numpy as np
import pytest
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.schema import JointState, Source
from imagewam_ros.data.bag_label import label_episode
from imagewam_ros.data.episode import find_episodes, read_provenance
from imagewam_ros.data.frames import read_frames
from imagewam_ros.data.interventions import lessons
from imagewam_ros.msg import EpisodeStatus, ExecutorEvent, ExecutorStatus, SimStatus
from imagewam_ros.nodes import messages, qos, topics
from imagewam_ros.nodes.expert_operator import ExpertOperator
from imagewam_ros.sim.cell import Cell
from imagewam_ros.teleop.operator import Clutch

ROBOT = load_embodiment("sim_cell")
PERIOD_NS = 5_000_000


def moved(state: JointState, velocity: float) -> JointState:
    return JointState(state.stamp_ns, state.joint_names, state.position, np.full(14, velocity))


def test_it_waits_then_does_the_task_then_lets_go() -> None:
    cell, operator, start_ns = Cell(ROBOT, "block_lift"), ExpertOperator(ROBOT, Source.TELEOP), 7 * 10**9
    cell.reset(1000)
    assert operator.step(start_ns, cell.joint_state()).clutch is Clutch.RELEASED
    operator.arm()
    assert "no scene has been seen" in operator.step(start_ns, cell.joint_state()).reason
    operator.see("block_lift", cell.instruction, cell.objects())
    assert "waiting until they rest" in operator.step(start_ns, moved(cell.joint_state(), 0.5)).reason
    target, sequences = cell.joint_state().position, []
    for _ in range(2000):
        step = operator.step(start_ns + cell.time_ns, cell.joint_state())
        if step.clutch is Clutch.RELEASED:
            break
        if step.chunk is not None:
            assert step.chunk.source is Source.TELEOP and step.chunk.stamp_ns == start_ns + cell.time_ns
            sequences.append(step.chunk.sequence)
            chunk = step.chunk
        rows = np.arange(chunk.rows)
        now = (start_ns + cell.time_ns + PERIOD_NS - chunk.due_ns(0)) / chunk.period_ns
        target = np.array([np.interp(now, rows, column) for column in chunk.positions.T])
        cell.step(target, PERIOD_NS)
    assert cell.success() and step.reason == "done"
    assert sequences == list(range(1, len(sequences) + 1)) and len(sequences) > 30


def test_what_cannot_be_reached_lets_go_with_the_reason() -> None:
    cell, operator = Cell(ROBOT, "tray_lift"), ExpertOperator(ROBOT, Source.TAKEOVER)
    cell.reset(1000)
    pose = np.array([2.0, 0, 0.01, 1, 0, 0, 0])
    operator.see("tray_lift", cell.instruction, {"tray": pose})
    operator.arm()
    step = operator.step(0, cell.joint_state())
    assert step.clutch is Clutch.RELEASED and "tool cannot reach" in step.reason


def test_a_mirror_holds_what_it_was_told() -> None:
    cell, mirror = (Cell(ROBOT, "hand_over") for _ in range(2))
    cell.reset(1003)
    mirror.mirror(cell.joint_state().position, cell.objects(), cell.instruction)
    assert np.array_equal(mirror.joint_state().position, cell.joint_state().position)
    assert np.array_equal(mirror.objects()["bar"], cell.objects()["bar"])
    assert np.allclose(mirror.world.position("bar"), cell.world.position("bar"))
    with pytest.raises(ValueError, match="hand_over has no object 'tray'"):
        mirror.mirror(cell.joint_state().position, {"tray": np.zeros(7)}, "lift")


def test_poses_keep_their_order() -> None:
    pose = np.array([1.0, 2, 3, 0.5, 0.1, 0.2, 0.3])
    assert messages.to_pose(messages.from_pose(pose)).tolist() == pose.tolist()


@pytest.mark.slow
def test_a_takeover_by_the_expert_is_recorded_as_an_intervention(spawn, probe, tmp_path: Path) -> None:
    scene = probe.collect(SimStatus, topics.SIM_STATUS, qos.STATUS)
    told = probe.collect(String, topics.TELEOP_STATUS, qos.STATUS)
    status = probe.collect(ExecutorStatus, topics.STATUS, qos.STATUS)
    events = probe.collect(ExecutorEvent, topics.EVENT, qos.COMMAND_LOG)
    episode = probe.collect(EpisodeStatus, topics.EPISODE_STATUS, qos.STATUS)
    time = {"use_sim_time": True}
    sim = spawn("imagewam_ros.nodes.sim_node", **time, speed=0.25, task="block_lift", seed=1002)
    executor = spawn("imagewam_ros.nodes.executor_node", **time, real_time_factor=0.25, guarded=False)
    teleop = spawn("imagewam_ros.nodes.teleop_node", **time, device="expert", takeover=True)
    recorder = spawn("imagewam_ros.nodes.recorder_node", **time, directory=tmp_path)
    nodes = {"sim": sim, "executor": executor, "teleop": teleop, "recorder": recorder}

    def text() -> str:
        return "\n".join(node.text() for node in nodes.values())

    for name in nodes:
        assert probe.change(name, "configure"), text()
    for name in ("sim", "recorder", "executor", "teleop"):
        assert probe.until(lambda name=name: probe.change(name, "activate")), text()
    assert probe.until(lambda: scene and told and told[-1].data == "released: call teleop/engage to take over"), text()
    assert probe.until(lambda: probe.call(Trigger, f"{topics.EPISODE}/start", Trigger.Request(), once=True).success), (
        text()
    )
    assert probe.call(SetBool, topics.TELEOP_ENGAGE, SetBool.Request(data=True)).success, text()
    assert probe.until(lambda: any(one.taken_over for one in status)), text()
    assert probe.until(lambda: scene[-1].success, 180), text()
    assert probe.call(Trigger, f"{topics.EPISODE}/success", Trigger.Request()).success, text()
    assert probe.until(lambda: episode[-1].label == "success"), text()
    (folder,) = find_episodes(tmp_path)
    about = read_provenance(folder)
    assert len(about.interventions) == 1 and about.task == "block_lift" and about.label == "success"
    first = next(event for event in events if event.trigger == "accepted")
    assert any("the scene's seed 1002 is one of evaluation" in one.reason for one in episode)
    assert about.interventions[0][0] == messages.stamp_ns(first.header.stamp), "the wait before it is none"
    assert label_episode(folder, "success").interventions == about.interventions
    frames = read_frames(folder)
    (rows,) = lessons(frames.stamps_ns, about.interventions)
    assert rows.stop - rows.start > 40, "the correction is what training would read"
