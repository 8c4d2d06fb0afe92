# SPDX-License-Identifier: Apache-2.0
"""The MuJoCo model is the URDF's robot with drives, cameras and a table."""

import numpy as np
import pytest

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.kinematics.chains import Chains
from imagewam_ros.kinematics.description import expand
from imagewam_ros.sim.gl import mujoco
from imagewam_ros.sim.scene import PHYSICS_NS, build_model
from imagewam_ros.sim.tasks import TASKS

ROBOT = load_embodiment("sim_cell")


@pytest.fixture(scope="module")
def model():
    return build_model(expand(), ROBOT, TASKS["tray_lift"])


def test_joint_bounds_and_force_limits_come_from_the_urdf(model):
    for joint in ROBOT.joints:
        assert np.allclose(model.joint(joint.name).range, (joint.lower, joint.upper))
        assert np.allclose(model.actuator(joint.name).ctrlrange, (joint.lower, joint.upper))
        assert model.actuator(joint.name).forcerange[1] > 0


def test_actuators_are_in_the_policy_vectors_order(model):
    assert [model.actuator(i).name for i in range(model.nu)] == list(ROBOT.joint_names)


def test_each_second_finger_follows_the_first(model):
    assert model.neq == 2
    names = {model.joint(int(i)).name for i in (*model.eq_obj1id, *model.eq_obj2id)}
    assert names == {"left_gripper", "left_gripper_mimic", "right_gripper", "right_gripper_mimic"}


def test_control_period_is_a_whole_number_of_physics_steps(model):
    assert model.opt.timestep == PHYSICS_NS / 1e9
    assert ROBOT.period_ns % PHYSICS_NS == 0


def test_cameras_look_along_their_optical_frames(model):
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    chains = Chains(expand(), ROBOT)
    for camera in ROBOT.cameras:
        frame = chains.pose(np.zeros(14), camera.frame)
        seen = data.camera(camera.name).xmat.reshape(3, 3)
        assert np.allclose(data.camera(camera.name).xpos, frame[:3, 3])
        assert np.allclose(seen @ np.diag([1, -1, -1]), frame[:3, :3], atol=1e-12)


def test_policy_images_cost_no_shadows_and_no_antialiasing(model):
    assert model.vis.quality.shadowsize == 0
    assert model.vis.quality.offsamples == 0


def test_masses_equal_the_urdfs(model):
    assert model.body("left_upper_arm_link").mass[0] == pytest.approx(1.0)
    assert model.body("right_right_finger_link").mass[0] == pytest.approx(0.05)
