# SPDX-License-Identifier: Apache-2.0
"""Chunks to moving arms through real processes, and every way in which that must not go wrong."""

import dataclasses
import re

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool, Trigger

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.schema import Source
from imagewam_ros.kinematics.chains import Chains
from imagewam_ros.kinematics.description import describe
from imagewam_ros.msg import ExecutorStatus
from imagewam_ros.nodes import messages, qos, topics

ROBOT = load_embodiment("sim_cell")


@pytest.mark.parametrize("output", ["forward", "trajectory", "joint_command"])
def test_chunk_moves_both_arms_and_deactivation_ends_it(cell, output) -> None:
    running = cell(output=output)
    assert not running.logged, "an inactive executor sends nothing"
    target = running.lean(0.3)
    running.send(running.chunk(target))
    running.wait(lambda s: "is inactive" in s.refusal)
    running.activate()
    running.wait(lambda s: s.state == ExecutorStatus.HOLDING and "waiting for a chunk" in s.reason)
    running.drive(target)
    running.wait(lambda s: s.state == ExecutorStatus.HOLDING and "no new chunk" in s.reason)
    assert running.probe.until(lambda: np.abs(running.position - target)[[0, 7]].max() < 0.03), running.position
    assert running.probe.change("executor", "deactivate"), running.executor.text()
    ended = running.wait(lambda s: s.state == ExecutorStatus.INACTIVE)
    ticks = len(running.joints)
    assert running.probe.until(lambda: len(running.joints) > ticks + 40)
    assert running.logged[-1].tick <= ended.tick, "nothing is sent after deactivation"
    running.check_limits()
    assert running.probe.change("executor", "cleanup", "configure"), running.executor.text()
    running.activate()
    assert running.executor.stop() == 0, running.executor.text()


def test_diagnostics_show_jitter_beside_an_empty_loop_and_where_travel_went(cell) -> None:
    running = cell()
    reports = running.probe.collect(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
    running.activate()
    running.drive(running.lean(0.3))

    def values() -> dict[str, str]:
        mine = [m.status[0] for m in list(reports) if m.status[0].name == "/executor"]
        return {pair.key: pair.value for status in mine for pair in status.values}

    wanted = {"lateness_s", "lateness_histogram", "empty_loop_lateness_s", "commands_rate_hz", "limited_ticks"}
    assert running.probe.until(lambda: wanted <= set(values())), values()
    running.wait(lambda s: s.state == ExecutorStatus.HOLDING and "no new chunk" in s.reason)
    assert running.probe.until(lambda: "executed 0.3" in values()["left_travel"]), values()["left_travel"]
    assert running.executor.stop() == 0
    assert "left_travel: predicted 0.3" in running.executor.text()


def test_deactivation_while_moving_brakes_smoothly(cell) -> None:
    running = cell()
    running.activate()
    running.start_moving()
    assert running.probe.change("executor", "deactivate"), running.executor.text()
    running.wait_at_rest()
    running.check_limits()


def test_signal_while_moving_brakes_before_the_process_ends(cell) -> None:
    running = cell()
    running.activate()
    running.start_moving()
    assert running.executor.stop() == 0, running.executor.text()
    running.wait_at_rest()


def test_bad_chunks_are_refused_with_reasons_and_nothing_moves(cell) -> None:
    running = cell()
    running.activate()
    start = running.position
    nan = np.zeros((16, 14))
    nan[3, 2] = np.nan
    swapped = (*ROBOT.joint_names[1:], ROBOT.joint_names[0])
    for spoil, text in (
        (lambda good: dataclasses.replace(good, positions=good.positions + nan), "'left_elbow' is nan"),
        (lambda good: dataclasses.replace(good, joint_names=swapped), "joint"),
        (lambda good: dataclasses.replace(good, stamp_ns=good.stamp_ns - 5_000_000_000), "old"),
        (lambda good: dataclasses.replace(good, positions=good.positions + 3.0), "outside"),
    ):
        running.refuse(text, spoil)
    message = messages.from_chunk(running.chunk(running.lean(0.3)))
    message.rows = 99
    running.chunks.publish(message)
    assert running.probe.until(lambda: "expected 99 rows of 14 joints" in running.executor.text())
    assert np.abs(running.position - start).max() < 0.01
    running.drive(running.lean(0.1))
    other = "contract 'f00d', expected 'cafe'"
    status = running.refuse(other, lambda good: dataclasses.replace(good, contract_hash="f00d"))
    assert status.contract_hash == "cafe"


def test_hold_and_resume(cell) -> None:
    running = cell()
    running.activate()
    running.start_moving()
    answer = running.probe.call(Trigger, topics.HOLD, Trigger.Request())
    assert answer.success and "asked to hold" in answer.message
    running.wait(lambda s: s.state == ExecutorStatus.HOLDING and "asked to hold" in s.reason)
    running.wait_at_rest()
    running.refuse("on hold")
    assert running.probe.call(Trigger, topics.RESUME, Trigger.Request()).success
    running.drive(running.lean(0.2))
    running.check_limits()
    assert "asked to pause" in running.probe.call(Trigger, topics.PAUSE, Trigger.Request()).message
    running.send(running.chunk(running.lean(0.1)))
    running.wait(lambda s: "executor is on hold: asked to pause; resume it first" in s.refusal)


def test_human_takes_one_arm_and_hands_it_back(cell) -> None:
    running = cell()
    answer = running.probe.call(SetBool, topics.TAKE_OVER, SetBool.Request(data=True))
    assert not answer.success and "no takeover: the executor is inactive" in answer.message
    running.activate()
    running.drive(running.lean(0.6), rows=40)
    running.wait_for_speed(0.3)
    answer = running.probe.call(SetBool, f"{topics.TAKE_OVER}_left", SetBool.Request(data=True))
    assert answer.success and "a human has the left arm" in answer.message
    running.wait(lambda s: s.state == ExecutorStatus.TAKEOVER and list(s.taken_over) == ["left"])
    left = ROBOT.arm_slice("left")
    assert running.probe.until(lambda: np.abs(running.logged[-1].velocity[left]).max() == 0)
    answer = running.probe.call(Trigger, topics.RELEASE, Trigger.Request())
    assert "handed back" in answer.message
    running.drive(running.lean(0.2))
    running.check_limits()


def test_guard_caps_the_tools_speed(cell) -> None:
    running = cell(guarded=True)
    running.activate()
    running.drive(running.lean(0.5), rows=10)
    running.wait(lambda s: s.state == ExecutorStatus.HOLDING and "no new chunk" in s.reason)
    chains = Chains(describe(ROBOT), ROBOT)
    commands = list(running.commands)  # more keep coming
    elapsed_s = np.diff([command.nominal_ns for command in commands])[:, None] / 1e9
    path = np.array([[pose[:3, 3] for pose in chains.forward(c.position).values()] for c in commands])
    speed = np.linalg.norm(np.diff(path, axis=0), axis=-1) / elapsed_s
    assert 0.05 < speed.max() <= 0.26


def test_shadowed_policy_moves_nothing_and_is_compared_with_the_human(cell) -> None:
    running = cell(shadow=True)
    running.activate()
    target = running.lean(-0.3)
    running.drive(running.lean(0.3), source=Source.TELEOP)
    running.send(running.chunk(target))
    status = running.wait(lambda s: s.state == ExecutorStatus.HOLDING and "no new chunk" in s.reason)
    assert status.accepted == 1 and status.refused == 0
    found = r"shadow, left arm: policy and commands differ by 0\.[1-9]\d* rad rms, at most 0\.[4-7]"
    assert running.probe.until(lambda: re.search(found, running.executor.text())), running.executor.text()
    running.wait(lambda s: s.shadow and len(s.agreement_rms) == 2 and s.agreement_rms[0] > 0.1)


def test_silent_robot_is_a_fault_until_reset(cell) -> None:
    running = cell(simulated=False)
    running.activate()
    running.start_moving()
    assert running.probe.change("sim", "deactivate")
    running.wait(lambda s: s.state == ExecutorStatus.FAULTED and "joint states silent" in s.reason)
    running.wait_at_rest()
    running.check_limits()
    assert running.probe.change("sim", "activate")
    reset = [""]

    def was_reset() -> bool:
        answer = running.probe.call(Trigger, topics.RESET_FAULT, Trigger.Request())
        reset.append(answer.message)
        return bool(answer.success)

    assert running.probe.until(was_reset), reset
    running.wait(lambda s: s.state == ExecutorStatus.HOLDING and "fault reset, on hold until resumed" in s.reason)
    running.refuse("on hold")
    assert running.probe.call(Trigger, topics.RESUME, Trigger.Request()).success
    running.drive(running.lean(0.1))


def test_a_fault_outlives_a_new_configuration_and_a_silent_executor_sends_nothing(cell, probe) -> None:
    running = cell(simulated=False)
    running.activate()
    heard = probe.collect(Float64MultiArray, topics.forward("left"), 10)
    running.wait(lambda s: s.state == ExecutorStatus.HOLDING)
    assert probe.until(lambda: len(heard) > 20)
    assert probe.change("sim", "deactivate")
    running.wait(lambda s: s.state == ExecutorStatus.FAULTED and "joint states silent" in s.reason)
    answer = probe.call(Trigger, topics.RESET_FAULT, Trigger.Request())
    assert not answer.success and "bring it back first" in answer.message
    tick = running.logged[-1].tick
    assert probe.until(lambda: running.logged[-1].tick > tick + 100)
    count, tick = len(heard), running.logged[-1].tick
    assert probe.until(lambda: running.logged[-1].tick > tick + 100)
    assert len(heard) <= count + 1
    assert probe.change("executor", "deactivate", "cleanup", "configure"), running.executor.text()
    assert probe.change("sim", "activate")
    fault = "the fault was not reset: "
    assert probe.until(lambda: not probe.change("executor", "activate") and fault in running.executor.text())


class Relay:
    """The joint states of one cell, passed on as two drivers would: one message per arm."""

    def __init__(self, probe) -> None:
        self.sides = {arm.side: ROBOT.joint_names[ROBOT.arm_slice(arm.side)] for arm in ROBOT.arms}
        self._publisher = probe.node.create_publisher(JointState, topics.JOINT_STATES, qos.JOINT_STATES_OUT)
        self._latest: JointState | None = None
        probe.node.create_subscription(JointState, "cell_joint_states", self._hear, qos.COMMAND_LOG)
        self._clock = probe.node.get_clock()
        probe.node.create_timer(0.01, self._send)

    def _hear(self, message: JointState) -> None:
        self._latest = message

    def _send(self) -> None:
        if self._latest is None:
            return
        for names in list(self.sides.values()):
            state = messages.to_joint_state(self._latest, names)
            message = messages.from_joint_state(state)
            message.header.stamp = self._clock.now().to_msg()
            self._publisher.publish(message)


def test_one_arms_frozen_joint_states_stop_both(cell, probe) -> None:
    relay = Relay(probe)
    running = cell(simulated=False, remap="joint_states:=cell_joint_states")
    running.activate()
    running.start_moving()
    del relay.sides["right"]
    status = running.wait(lambda s: s.state == ExecutorStatus.FAULTED)
    assert "right arm's joint states silent" in status.reason, status.reason
    running.wait_at_rest()
    running.check_limits()


def test_controllers_that_go_away_are_noticed(cell, probe) -> None:
    Relay(probe)
    running = cell(simulated=False, remap="joint_states:=cell_joint_states")
    running.activate()
    running.wait(lambda s: s.state == ExecutorStatus.HOLDING and s.tick > 100)
    assert running.sim.stop() == 0
    running.wait(lambda s: s.state == ExecutorStatus.HOLDING and "controller silent" in s.reason)
    running.send(running.chunk(running.lean(0.2)))
    running.wait(lambda s: "on hold" in s.refusal)


def test_clock_that_stands_still_is_named_and_a_stop_ends_nevertheless(cell) -> None:
    running = cell()
    running.activate()
    running.start_moving()
    assert running.probe.change("sim", "deactivate")
    assert running.probe.until(lambda: "/clock has not moved" in running.executor.text())
    assert running.probe.change("executor", "deactivate"), running.executor.text()
    running.wait_at_rest()
    running.check_limits()


def test_half_speed_changes_nothing_but_the_wall_time(cell) -> None:
    running = cell(speed=0.5)
    running.activate()
    target = running.lean(0.3)
    running.drive(target)
    running.wait(lambda s: s.state == ExecutorStatus.HOLDING and "no new chunk" in s.reason)
    assert running.probe.until(lambda: np.abs(running.position - target)[[0, 7]].max() < 0.05), running.position
    running.check_limits()
    commands = running.commands
    nominal_ns = np.array([command.nominal_ns for command in commands])
    assert (np.diff(nominal_ns) % ROBOT.period_ns == 0).all(), "one grid, in simulated time"


def test_activation_is_refused_with_a_reason(spawn, probe) -> None:
    executor = spawn("imagewam_ros.nodes.executor_node")
    assert probe.change("executor", "configure"), executor.text()
    assert not probe.change("executor", "activate")
    assert probe.until(lambda: "nobody listens to /left_forward_position_controller/commands" in executor.text()), (
        executor.text()
    )
    spawn("imagewam_ros.nodes.sim_node")
    assert probe.change("sim", "configure")
    publisher = probe.node.create_publisher(JointState, topics.JOINT_STATES, qos.JOINT_STATES_OUT)
    assert probe.until(publisher.get_subscription_count)
    names = list(ROBOT.joint_names)

    def refused(text: str) -> bool:
        seen = probe.until(lambda: not probe.change("executor", "activate") and text in executor.text())
        assert seen, executor.text()
        return seen

    assert refused("no joint states yet; is /joint_states published?")
    publisher.publish(JointState(name=names[1:], position=[0.0] * 13))
    assert refused("joint_states lacks left_waist; found left_shoulder")
    publisher.publish(JointState(name=names, position=[0.0] * 14))
    assert refused("do its stamps come from the clock that this node uses (use_sim_time)?")
    message = JointState(name=names, position=[9.0] * 14)
    message.header.stamp = probe.node.get_clock().now().to_msg()
    publisher.publish(message)
    assert refused("move it inside its bounds before activation")


def test_a_dead_control_thread_ends_the_process(ros) -> None:
    from imagewam_ros.nodes.executor_node import ExecutorNode

    node = ExecutorNode()
    node.trigger_configure()
    node.on_end("the control thread ended: RuntimeError: cable cut")
    assert node.finished and node.exit_status == 1
    node.trigger_cleanup()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"robot": "sim_cel"}, "unknown robot 'sim_cel'; did you mean 'sim_cell'?"),
        ({"output": "forwrd"}, "unknown output 'forwrd'; did you mean 'forward'?"),
        ({"real_time_factor": 0.0}, "real_time_factor must be 0.01 to 20, found 0.0"),
        ({"fifo_priority": 100}, "fifo_priority must be 0 to 99, found 100"),
        ({"joint_state_age_s": 0.0}, "joint_state_age_s must be positive"),
        ({"control.smoothing_hz": -1.0}, "smoothing_hz must be positive, found -1.0"),
        ({"control.smothing_hz": 1.0}, "unknown parameter 'control.smothing_hz'; did you mean 'control.smoothing_hz'?"),
        ({"cpu": 4096}, "cannot set fifo_priority 0 and cpu 4096"),
    ],
)
def test_bad_configuration_is_named(ros, given, text) -> None:
    from rclpy.lifecycle import TransitionCallbackReturn

    from imagewam_ros.nodes.executor_node import ExecutorNode

    node = ExecutorNode()
    for name, value in given.items():
        node.declare_parameter(name, value)
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert text in node.diagnostics.message
