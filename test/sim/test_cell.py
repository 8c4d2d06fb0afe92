# SPDX-License-Identifier: Apache-2.0
"""The cell is deterministic, keeps its own time, and refuses what it cannot do."""

import math
import subprocess
import sys
import threading

import numpy as np
import pytest

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError, ImageWamError
from imagewam_ros.sim.cell import HOME, Cell
from imagewam_ros.sim.gl import BACKEND

MS = 1_000_000
needs_gl = pytest.mark.skipif(BACKEND == "disable", reason="no EGL or OSMesa library for off-screen rendering")


@pytest.fixture(scope="module")
def cell():
    cell = Cell()
    yield cell
    cell.close()


def wave(cell, seed, seconds=0.5):
    cell.reset(seed)
    start = cell.joint_state().position
    for i in range(round(seconds * 200)):
        cell.step(start + 0.2 * math.sin(i / 20) * ~cell.embodiment.gripper_mask, 5 * MS)
    return cell.joint_state()


def test_same_seed_gives_the_same_bits(cell):
    first, other, again = wave(cell, 3), wave(cell, 4), wave(Cell(), 3)
    assert np.array_equal(first.position, again.position)
    assert np.array_equal(first.velocity, again.velocity)
    assert not np.array_equal(first.position, other.position)


def test_reset_forgets_the_episode_before(cell):
    wave(cell, 5)
    first = wave(cell, 3)
    assert np.array_equal(first.position, wave(Cell(), 3).position)


def test_arms_start_near_home_and_joints_keep_the_policy_order(cell):
    cell.reset(0)
    state = cell.joint_state()
    assert state.joint_names == cell.embodiment.joint_names
    assert np.abs(state.position - HOME * 2).max() <= 0.04 + 1e-9
    assert np.array_equal(state.position[[6, 13]], [0.04, 0.04])


def test_joints_arrive_at_their_targets(cell):
    cell.reset(1)
    target = cell.joint_state().position + 0.1 * ~cell.embodiment.gripper_mask
    target[[6, 13]] = 0.01
    cell.step(target, 1500 * MS)
    assert np.abs(cell.joint_state().position - target).max() < 0.01
    assert np.abs(cell.joint_state().velocity).max() < 0.01


def test_time_counts_from_reset(cell):
    cell.reset(0)
    assert cell.time_ns == 0
    cell.step(cell.joint_state().position, 5 * MS)
    cell.step(cell.joint_state().position, 50 * MS)
    assert cell.time_ns == 55 * MS == cell.joint_state().stamp_ns


def test_targets_beyond_the_bounds_are_clipped(cell):
    cell.reset(0)
    cell.step(np.full(14, 100.0), 2000 * MS)
    assert (cell.joint_state().position <= cell.embodiment.limits.upper + 0.02).all()


@pytest.mark.parametrize("duration_ns", [0, -5 * MS, 1 * MS, 7 * MS])
def test_durations_that_physics_cannot_step_are_refused(cell, duration_ns):
    with pytest.raises(ValueError, match="not a positive multiple of 2500000 ns"):
        cell.step(np.zeros(14), duration_ns)


@pytest.mark.parametrize("targets", [np.zeros(13), np.full(14, np.nan)])
def test_bad_targets_are_refused_and_nothing_moves(cell, targets):
    cell.reset(0)
    with pytest.raises(ValueError, match="expected 14 finite joint targets"):
        cell.step(targets, 5 * MS)
    assert cell.time_ns == 0


def test_unknown_task_names_the_nearest():
    with pytest.raises(ConfigError, match="unknown task 'tray_lfit'; did you mean 'tray_lift'"):
        Cell(task="tray_lfit")


def test_robot_without_a_twin_is_refused():
    with pytest.raises(ConfigError, match="robot 'piper' has no MuJoCo twin: the drives of left_joint1, .* sim_cell"):
        Cell(load_embodiment("piper"))


@needs_gl
def test_images_have_the_cameras_size_and_show_something(cell):
    cell.reset(0)
    for camera in cell.embodiment.cameras:
        image = cell.render(camera.name)
        assert image.shape == (camera.height, camera.width, 3)
        assert image.dtype == np.uint8
        assert image.std() > 20
    assert cell.render("front").shape == (480, 640, 3)


@needs_gl
def test_image_of_a_snapshot_is_of_the_moment_it_was_taken(cell):
    cell.reset(0)
    image, snapshot = cell.render("head"), cell.snapshot()
    cell.step(np.zeros(14), 500 * MS)
    assert not np.array_equal(cell.render("head"), image)
    assert np.array_equal(cell.render("head", snapshot), image)


@needs_gl
def test_left_and_right_wrist_images_are_not_swapped(cell):
    """Lift only the left hand: its camera's image changes, the right one's does not."""
    cell.reset(0)
    before = {side: cell.render(f"{side}_wrist").astype(int) for side in ("left", "right")}
    target = np.array(cell.joint_state().position)
    target[1] -= 0.4
    cell.step(target, 1000 * MS)
    change = {side: np.abs(cell.render(f"{side}_wrist") - before[side]).mean() for side in before}
    assert change["left"] > 10 * change["right"]


@needs_gl
def test_seed_varies_the_look_only_where_asked():
    looks = {}
    for randomise in (True, False):
        cell = Cell(randomise=randomise)
        colours = []
        for seed in (0, 1):
            cell.reset(seed)
            colours.append(cell.render("head")[:20].mean(axis=(0, 1)))
        looks[randomise] = np.abs(colours[0] - colours[1]).max()
        cell.close()
    assert looks[True] > 2
    assert looks[False] == 0


@needs_gl
def test_unknown_camera_names_the_nearest(cell):
    with pytest.raises(ConfigError, match="unknown camera 'hed'; did you mean 'head'"):
        cell.render("hed")


@needs_gl
def test_rendering_in_a_second_thread_is_refused(cell):
    cell.reset(0)
    cell.render("head")
    caught = []

    def render():
        try:
            cell.render("head")
        except ImageWamError as error:
            caught.append(str(error))

    thread = threading.Thread(target=render)
    thread.start()
    thread.join()
    assert "renders in another thread" in caught[0]


def test_without_opengl_physics_runs_and_cameras_say_what_to_install():
    code = (
        "from imagewam_ros.sim.cell import Cell\n"
        "cell = Cell(); cell.reset(0); cell.step(cell.joint_state().position, 5_000_000)\n"
        "try: cell.render('head')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"MUJOCO_GL": "disable"}, capture_output=True, text=True, check=True
    )
    assert "ConfigError cameras need OpenGL and none was found; apt-get install libegl1 libgl1" in done.stdout
