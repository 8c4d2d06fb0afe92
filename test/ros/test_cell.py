# SPDX-License-Identifier: Apache-2.0
"""The whole cell as processes: rendered cameras, policy, executor, moving arms, and a killed policy."""

import signal

import numpy as np

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.msg import ActionChunk, ExecutorCommand, ExecutorStatus, SimStatus
from imagewam_ros.nodes import messages, qos, topics
from imagewam_ros.srv import ResetScene, SetInstruction

ROBOT = load_embodiment("sim_cell")


def test_half_speed_episode_in_simulated_time_and_a_killed_policy(spawn, probe, checkpoint) -> None:
    clock = {"use_sim_time": True}
    sim = spawn("imagewam_ros.nodes.sim_node", speed=0.5, **clock)
    policy = spawn("imagewam_ros.nodes.policy_node", checkpoint=checkpoint, **clock)
    executor = spawn("imagewam_ros.nodes.executor_node", real_time_factor=0.5, control__late_limit_s=0.5, **clock)
    bringup = spawn("imagewam_ros.nodes.bringup_node", nodes="['sim','policy','executor']", **clock)
    logged = probe.collect(ExecutorCommand, topics.COMMAND, qos.COMMAND_LOG)
    chunks = probe.collect(ActionChunk, topics.CHUNK, 10)
    statuses = probe.collect(ExecutorStatus, topics.STATUS, qos.STATUS)
    scene = probe.collect(SimStatus, topics.SIM_STATUS, qos.STATUS)
    up = probe.until(lambda: "sim, policy, executor: active" in bringup.text(), 180)
    assert up, bringup.text() + policy.text() + executor.text()

    instruction = probe.call(ResetScene, topics.SIM_RESET, ResetScene.Request(seed=3)).instruction
    assert probe.call(SetInstruction, topics.SET_INSTRUCTION, SetInstruction.Request(instruction=instruction)).success
    assert probe.until(lambda: statuses[-1].state == ExecutorStatus.ACTIVE and statuses[-1].accepted >= 4), (
        policy.text(),
        executor.text(),
        statuses[-1].reason,
    )
    assert scene[-1].instruction == instruction and scene[-1].seed == 3
    sent = [messages.to_command(message) for message in list(logged)]
    moved = np.ptp([command.position for command in sent], axis=0)
    assert (moved[~ROBOT.gripper_mask] > 1e-4).all(), "every joint follows the policy"
    received = [messages.to_chunk(message) for message in list(chunks)]
    spacing_s = np.diff([chunk.stamp_ns for chunk in received]) / 1e9
    assert (spacing_s >= 0.37).all(), "the replan period is counted in simulated time"
    assert statuses[-1].contract_hash == received[-1].contract_hash

    policy.kill()
    held = probe.until(lambda: statuses[-1].state == ExecutorStatus.HOLDING and "no new chunk" in statuses[-1].reason)
    assert held, statuses[-1].reason
    assert probe.until(lambda: np.abs(logged[-1].velocity).max() == 0 and np.abs(logged[-1].acceleration).max() == 0)
    velocity = np.array([message.velocity for message in list(logged)])
    ticks = np.array([message.tick for message in list(logged)])
    step = np.diff(velocity, axis=0) / np.diff(ticks)[:, None] / (ROBOT.period_ns / 1e9)
    assert (np.abs(step) <= ROBOT.limits.acceleration * 1.01).all(), "the arms stop without a jerk"
    assert executor.process.poll() is None and sim.process.poll() is None

    for process in (bringup, executor, sim):
        process.process.send_signal(signal.SIGINT)
    for process in (bringup, executor, sim):
        assert process.stop() == 0, process.text()
