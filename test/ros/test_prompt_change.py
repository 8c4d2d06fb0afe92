# SPDX-License-Identifier: Apache-2.0
"""Another instruction while the arms move: one encode, no lost chunk, no image or command missed."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from imagewam_ros.model.protocol import Instruction
from imagewam_ros.msg import ActionChunk, ExecutorStatus
from imagewam_ros.nodes import topics
from imagewam_ros.nodes.stub_policy_node import StubPolicyNode
from imagewam_ros.srv import SetInstruction

SPEED = 0.25
ENCODE_S = 0.8
"""Wall time; a fifth of a simulated second, and as long as four images at 20 Hz of simulated time."""
LONGEST_S = 20.0
"""An encode waits so long for two images, which a busy machine draws slowly; nothing may keep them away."""


class SlowReader(StubPolicyNode):
    """Its text encoder takes its time and is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.encoded: list[str] = []

    def load(self, config, robot):
        policy = super().load(config, robot)
        policy._model.encode_instruction = self._encode
        return policy

    def _encode(self, text: str) -> Instruction:
        import torch

        self.encoded.append(text)
        before, end = self.images, time.monotonic() + LONGEST_S
        time.sleep(ENCODE_S)
        while before and self.images < before + 2 and time.monotonic() < end:
            time.sleep(0.01)
        return Instruction(text, torch.zeros(1, 1))

    @property
    def images(self) -> int:
        return int(self.diagnostics.meter.report(1).get("head_total", "0"))


@pytest.fixture
def policy(ros) -> Iterator[SlowReader]:
    node = SlowReader()
    node.set_parameters([Parameter("use_sim_time", value=True)])
    node.declare_parameter("instruction", "lift the tray")
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def spin() -> None:
        try:
            executor.spin()
        except ExternalShutdownException:
            return

    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS, node.diagnostics.message
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS, node.diagnostics.message
    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    yield node
    executor.shutdown(2)
    thread.join(5)
    node.halt("the test ends")
    node.destroy_node()


def test_a_new_prompt_costs_one_encode_and_does_not_stall_the_motion(policy, cell, probe) -> None:
    chunks: list[ActionChunk] = probe.collect(ActionChunk, topics.CHUNK, 10)
    moving = cell(speed=SPEED)
    moving.activate()
    moving.wait(lambda status: status.state == ExecutorStatus.ACTIVE and status.accepted >= 3)
    before, images = len(moving.statuses), policy.images
    assert policy.encoded == ["lift the tray"]
    old = chunks[-1].instruction_id
    answer = probe.call(
        SetInstruction, topics.SET_INSTRUCTION, SetInstruction.Request(instruction="put it down"), once=True
    )
    assert answer.success and answer.message == f"instruction {old + 1}: put it down"
    assert policy.images > images + 1, "images were taken while the text was encoded"
    assert probe.until(lambda: chunks[-1].instruction_id == old + 1)
    moving.wait(lambda status: status.sequence == chunks[-1].sequence)
    assert policy.encoded == ["lift the tray", "put it down"]
    sequences = [chunk.sequence for chunk in chunks]
    assert np.diff(sequences).tolist() == [1] * (len(sequences) - 1), "no chunk was thrown away"
    assert {status.state for status in moving.statuses[before:]} == {ExecutorStatus.ACTIVE}
    assert len({status.starved_ticks for status in moving.statuses[before:]}) == 1, "the curve never ran out of rows"


def test_the_same_prompt_again_costs_nothing(policy, cell, probe) -> None:
    cell(speed=SPEED)
    for _ in range(2):
        request = SetInstruction.Request(instruction="lift the  tray")
        assert probe.call(SetInstruction, topics.SET_INSTRUCTION, request).success
    assert policy.encoded == ["lift the tray"]
