# SPDX-License-Identifier: Apache-2.0
"""The doctor between a cell and its motion."""

from pathlib import Path

import pytest
import yaml
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from imagewam_ros.core.paths import share_dir
from imagewam_ros.nodes import qos, topics

DOCTOR = "imagewam_ros.nodes.doctor_node"
SIM = "imagewam_ros.nodes.sim_node"
EXECUTOR = "imagewam_ros.nodes.executor_node"


def test_activation_waits_for_a_healthy_cell(spawn, probe) -> None:
    doctor = spawn(DOCTOR, checkpoint="none", seconds=1.0)
    assert probe.change("doctor", "configure"), doctor.text()
    assert not probe.change("doctor", "activate")
    assert "the cell is not healthy: live: no graph of sim_cell heard" in doctor.text()
    joints = probe.collect(JointState, topics.JOINT_STATES, qos.COMMAND_LOG)
    sim = spawn(SIM, use_sim_time=True, speed=0.5)
    assert probe.change("sim", "configure", "activate"), sim.text()
    assert probe.until(lambda: len(joints) > 50)
    assert probe.until(lambda: probe.change("doctor", "activate")), doctor.text()  # a busy machine may look ill
    answers: list = []

    def healthy() -> bool:
        answers.append(probe.call(Trigger, topics.DOCTOR_CHECK, Trigger.Request()))
        return bool(answers[-1].success)

    assert probe.until(healthy), answers
    assert doctor.stop() == 0, doctor.text()


@pytest.fixture
def bring_up(spawn):
    """Start a cell whose doctor knows `robot`; returns the process that brings it up, and the doctor's."""

    def start(robot: Path | str, settle_s: float = 60.0):
        bringup = spawn("imagewam_ros.nodes.bringup_node", nodes="['sim','doctor','executor']", settle_s=settle_s)
        spawn(SIM, use_sim_time=True, speed=0.5)
        # As launched: the name is given on the command line, and must not become the probe's.
        doctor = spawn(DOCTOR, "-r", "__node:=doctor", robot=robot, checkpoint="none", seconds=1.0)
        spawn(EXECUTOR, use_sim_time=True, real_time_factor=0.5)
        return bringup, doctor

    return start


def test_the_executor_is_activated_once_the_doctor_has_found_nothing(bring_up, probe) -> None:
    bringup, doctor = bring_up("sim_cell")
    assert probe.until(lambda: "sim, doctor, executor: active" in bringup.text(), 180), bringup.text() + doctor.text()
    assert probe.state("executor") == "active"
    assert "already registered for node name" not in doctor.text()


def test_bringup_stops_before_the_executor_when_two_joints_are_swapped(bring_up, probe, tmp_path) -> None:
    data = yaml.safe_load((share_dir() / "config" / "robots" / "sim_cell.yaml").read_text())
    joints = data["arms"][0]["joints"]
    joints[1]["name"], joints[2]["name"] = joints[2]["name"], joints[1]["name"]
    (tmp_path / "swapped.yaml").write_text(yaml.safe_dump(data))
    bringup, _ = bring_up(tmp_path / "swapped.yaml", settle_s=0.5)
    bringup.process.wait(180)
    assert bringup.process.returncode == 1
    assert "node 'doctor' cannot activate: the cell is not healthy: URDF order" in bringup.text()
    assert "-> make config/robots/*.yaml and the URDF agree" in bringup.text()
    assert probe.state("executor") == "inactive"
