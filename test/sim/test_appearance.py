# SPDX-License-Identifier: Apache-2.0
"""What varies from seed to seed stays near what was built, and comes back to it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.kinematics.description import expand
from imagewam_ros.sim.appearance import BRIGHTNESS, CAMERA_M, CAMERA_RAD, FRICTION, HUE, MASS, SHADE, Appearance
from imagewam_ros.sim.scene import FRONT, build_model
from imagewam_ros.sim.tasks import TASKS, find_task

SEEDS = st.integers(0, 10_000)


@pytest.fixture(scope="module")
def built():
    model = build_model(expand(), load_embodiment("sim_cell"), find_task("tray_lift"))
    fields = ("geom_rgba", "cam_pos", "cam_quat", "light_diffuse", "light_dir", "geom_friction", "body_mass")
    return model, Appearance(model, keep_cameras=(FRONT,)), {name: getattr(model, name).copy() for name in fields}


def vary(built, seed):
    model, appearance, _ = built
    appearance.vary(np.random.default_rng(seed))
    return model


@settings(max_examples=25)
@given(SEEDS)
def test_everything_stays_within_its_range(built, seed):
    model, before = vary(built, seed), built[2]
    assert np.abs(model.geom_rgba[:, :3] - before["geom_rgba"][:, :3]).max() <= SHADE + HUE + 1e-6
    assert ((model.geom_rgba >= 0) & (model.geom_rgba <= 1)).all()
    assert np.abs(model.cam_pos - before["cam_pos"]).max() <= CAMERA_M + 1e-9
    for values, name, (low, high) in (
        (model.body_mass, "body_mass", MASS),
        (model.geom_friction[:, 0], "geom_friction", FRICTION),
        (model.light_diffuse, "light_diffuse", BRIGHTNESS),
    ):
        reference = before[name][:, 0] if name == "geom_friction" else before[name]
        assert (values >= low * reference - 1e-6).all() and (values <= high * reference + 1e-6).all()


@settings(max_examples=25)
@given(SEEDS)
def test_cameras_turn_a_little_and_stay_rotations(built, seed):
    model, before = vary(built, seed), built[2]
    assert np.allclose(np.linalg.norm(model.cam_quat, axis=1), 1.0)
    half = np.clip(np.abs((model.cam_quat * before["cam_quat"]).sum(1)), 0, 1)
    assert (2 * np.arccos(half) <= np.sqrt(3) * CAMERA_RAD + 1e-6).all()


@settings(max_examples=25)
@given(SEEDS)
def test_the_same_seed_is_the_same_cell(built, seed):
    first = vary(built, seed).geom_rgba.copy()
    vary(built, seed + 1)
    assert np.array_equal(vary(built, seed).geom_rgba, first), "around the built one, not around the last"


def test_seeds_differ(built):
    cameras = [vary(built, seed).cam_pos.copy() for seed in range(3)]
    assert not np.array_equal(cameras[0], cameras[1]) and not np.array_equal(cameras[1], cameras[2])


def test_the_spectators_camera_stays(built):
    model = vary(built, 5)
    index = model.cam(FRONT).id
    assert np.array_equal(model.cam_pos[index], built[2]["cam_pos"][index])
    assert np.allclose(model.cam_quat[index], built[2]["cam_quat"][index])


def test_geoms_of_one_paint_keep_one_paint(built):
    model, before = vary(built, 9), built[2]["geom_rgba"]
    _, paint = np.unique(before, axis=0, return_inverse=True)
    for number in np.unique(paint):
        colours = model.geom_rgba[paint.ravel() == number]
        assert np.allclose(colours, colours[0])


@pytest.mark.parametrize("name", TASKS)
def test_tasks_have_instructions_and_a_limit(name):
    task = find_task(name)
    assert task.time_limit_s > 0 and task.instructions
    assert len(set(task.instructions)) == len(task.instructions)
    assert all(text == text.strip().lower() for text in task.instructions)
