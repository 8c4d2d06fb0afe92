# SPDX-License-Identifier: Apache-2.0
"""The simulated cell: joint targets in, joints and images out, success decided by physics.

Deterministic: the same seed and the same targets give the same bits. Time is the cell's own.
"""

import math
import threading
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from imagewam_ros.core.embodiment import Embodiment, load_embodiment
from imagewam_ros.core.errors import ConfigError, ImageWamError, unknown_name
from imagewam_ros.core.schema import Floats, Image, JointState
from imagewam_ros.kinematics.description import describe
from imagewam_ros.sim.appearance import Appearance
from imagewam_ros.sim.gl import BACKEND, mujoco
from imagewam_ros.sim.scene import FRONT, FRONT_SIZE, PHYSICS_NS, build_model
from imagewam_ros.sim.tasks import find_task
from imagewam_ros.sim.world import World

FINE = (2048, 4)
"""Shadow map and samples per pixel of the fine spectator's camera; the policy's cameras have neither."""
HOLD_NS = 500_000_000
"""The task must stay achieved this long to count."""
HOME = (0.0, 0.05, 1.85, 0.0, math.pi - 1.90, 0.0, 0.04)
"""Each arm at the start of an episode, gripper last: rad and m."""
HOME_SPREAD_RAD = 0.04
UNTOUCHED_M = 0.005
"""Objects settle by less than this when nobody touches them."""


class Cell:
    """One cell with one task. Call reset before anything else; render in one thread only.

    randomise varies colours, light, camera mounts, friction and masses from seed to seed.
    fine_front gives the spectator's camera shadows and smooth edges, at about eight times the cost.
    """

    def __init__(
        self,
        embodiment: Embodiment | None = None,
        task: str = "tray_lift",
        randomise: bool = True,
        fine_front: bool = False,
    ) -> None:
        self.embodiment = embodiment or load_embodiment("sim_cell")
        self.task_name, self.task = task, find_task(task)
        self.randomise, self.fine_front = randomise, fine_front
        self.urdf = describe(self.embodiment)
        self.model = build_model(self.urdf, self.embodiment, self.task)
        self.data = mujoco.MjData(self.model)
        self.world = World(self.model, self.data)
        self.instruction = self.task.instructions[0]
        self._appearance = Appearance(self.model, keep_cameras=(FRONT,))
        joints = [self.model.joint(name) for name in self.embodiment.joint_names]
        self._position_index = np.array([joint.qposadr[0] for joint in joints])
        self._velocity_index = np.array([joint.dofadr[0] for joint in joints])
        mimics = [self.model.joint(f"{arm.gripper.name}_mimic") for arm in self.embodiment.arms]
        self._mimic_index = np.array([joint.qposadr[0] for joint in mimics])
        self._object_bodies = self.model.jnt_bodyid[self.model.jnt_type == mujoco.mjtJoint.mjJNT_FREE]
        names = [self.model.joint(i).name for i in range(self.model.njnt)]
        self._free_joints = [name for name in names if name.endswith("_free")]
        self._objects_start = self._objects()
        self._renderers: dict[tuple[int, int], mujoco.Renderer] = {}
        self._render_thread: int | None = None
        self._steps = 0
        self._achieved_since_ns: int | None = None

    @property
    def time_ns(self) -> int:
        """Time since reset."""
        return self._steps * PHYSICS_NS

    def reset(self, seed: int, instruction: str | None = None) -> None:
        """Start the episode that `seed` stands for: cell, objects, arms and instruction.

        `instruction` asks for something else than the seed's. Where the task does not know it, the
        right thing to do is to touch nothing, and success says whether that was so.
        """
        mujoco.mj_resetData(self.model, self.data)
        self._steps, self._achieved_since_ns = 0, None
        if self.randomise:
            self._appearance.vary(np.random.default_rng((seed, 0)))
        rng = np.random.default_rng((seed, 1))
        start = np.array(HOME * len(self.embodiment.arms))
        start += ~self.embodiment.gripper_mask * rng.uniform(-HOME_SPREAD_RAD, HOME_SPREAD_RAD, start.size)
        self.data.qpos[self._position_index] = start
        self.data.qpos[self._mimic_index] = start[self.embodiment.gripper_mask]
        self.data.ctrl[:] = start
        drawn = self.task.place(self.world, rng)
        self.instruction = drawn if instruction is None else instruction
        self.world.refresh()
        self._objects_start = self._objects()

    def mirror(self, positions: Floats, objects: Mapping[str, Floats], instruction: str) -> None:
        """Take over what another cell with this task holds, at rest and at time 0, for an expert to plan from.

        positions (joints,) in rad and m; objects maps each free body to its pose (7,): m, then quaternion wxyz.
        Raises ValueError for a body that this task does not have.
        """
        mujoco.mj_resetData(self.model, self.data)
        self._steps, self._achieved_since_ns, self.instruction = 0, None, instruction
        self.data.qpos[self._position_index] = self.data.ctrl[:] = positions
        self.data.qpos[self._mimic_index] = positions[self.embodiment.gripper_mask]
        for name, pose in objects.items():
            try:
                self.data.joint(f"{name}_free").qpos[:] = pose
            except KeyError:
                raise ValueError(f"{self.task_name} has no object {name!r}") from None
        self.world.refresh()
        self._objects_start = self._objects()

    def objects(self) -> dict[str, Floats]:
        """Pose (7,) of every free body: position in m, then quaternion wxyz."""
        return {name.removesuffix("_free"): np.array(self.data.joint(name).qpos) for name in self._free_joints}

    def step(self, targets: Floats, duration_ns: int) -> None:
        """Hold joint targets (joints,), rad and m, for a whole number of physics steps.

        Targets outside the joints' bounds are clipped by the servos, as real drives do.
        Raises ValueError for another length, a NaN, or a duration that is no multiple of 2.5 ms.
        """
        count, rest = divmod(duration_ns, PHYSICS_NS)
        if rest or count < 1:
            raise ValueError(f"duration {duration_ns} ns is not a positive multiple of {PHYSICS_NS} ns")
        if np.shape(targets) != self.data.ctrl.shape or not np.isfinite(targets).all():
            raise ValueError(f"expected {self.data.ctrl.size} finite joint targets, found {targets!r}")
        self.data.ctrl[:] = targets
        mujoco.mj_step(self.model, self.data, count)
        self._steps += count
        if not self._achieved():
            self._achieved_since_ns = None
        elif self._achieved_since_ns is None:
            self._achieved_since_ns = self.time_ns

    def joint_state(self) -> JointState:
        """Joints as encoders would report them now, in the embodiment's order."""
        position, velocity = self.data.qpos[self._position_index], self.data.qvel[self._velocity_index]
        return JointState(self.time_ns, self.embodiment.joint_names, position, velocity)

    def success(self) -> bool:
        """Whether the task is achieved and has been for half a second."""
        since = self._achieved_since_ns
        return since is not None and self.time_ns - since >= HOLD_NS

    def snapshot(self) -> mujoco.MjData:
        """Copy the state, so that a camera can be rendered later as of now."""
        copy = mujoco.MjData(self.model)
        mujoco.mj_copyData(copy, self.model, self.data)
        return copy

    def render(self, camera: str, state: mujoco.MjData | None = None) -> Image:
        """Return [H, W, 3] uint8 RGB of a policy camera, or of "front", now or at a snapshot.

        Raises ConfigError for an unknown camera or without OpenGL, ImageWamError from another
        thread than the first call's: an EGL context belongs to the thread that made it.
        """
        image: Image = self._scene(camera, state).render()
        return image

    def segment(self, camera: str, state: mujoco.MjData | None = None) -> dict[str, NDArray[np.bool_]]:
        """Return where a camera sees each of the task's objects: [H, W] by body name, what hides them left out.

        Raises as `render` does.
        """
        renderer = self._scene(camera, state)
        renderer.enable_segmentation_rendering()
        try:
            found = renderer.render()  # (H, W, 2): number and kind of what is seen
        finally:
            renderer.disable_segmentation_rendering()
        is_geom = found[..., 1] == int(mujoco.mjtObj.mjOBJ_GEOM)
        body = np.where(is_geom, self.model.geom_bodyid[np.where(is_geom, found[..., 0], 0)], -1)
        return {self.model.body(number).name: body == number for number in self._object_bodies}

    def close(self) -> None:
        """Free the OpenGL contexts; call it in the thread that rendered."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def _scene(self, camera: str, state: mujoco.MjData | None) -> mujoco.Renderer:
        """Renderer of a camera, with the cell as it is now or was at a snapshot."""
        if camera != FRONT and camera not in self.embodiment.camera_names:
            raise ConfigError(unknown_name("camera", camera, (*self.embodiment.camera_names, FRONT)))
        renderer = self._renderer(camera)
        renderer.update_scene(self.data if state is None else state, camera)
        return renderer

    def _achieved(self) -> bool:
        if self.instruction in self.task.instructions:
            return self.task.achieved(self.world, self.instruction)
        return bool(np.abs(self._objects() - self._objects_start).max() < UNTOUCHED_M)

    def _objects(self) -> Floats:
        """(objects, 3) positions of all free bodies."""
        return np.array(self.data.xpos[self._object_bodies])

    def _renderer(self, camera: str) -> mujoco.Renderer:
        if BACKEND in ("disable", "disabled", "off", "false", "0"):
            raise ConfigError(
                "cameras need OpenGL and none was found; apt-get install libegl1 libgl1 (or libosmesa6) and try again"
            )
        here = threading.get_ident()
        self._render_thread = self._render_thread or here
        if here != self._render_thread:
            raise ImageWamError("this cell renders in another thread; call render where it was called first")
        size = FRONT_SIZE
        if camera != FRONT:
            found = self.embodiment.camera(camera)
            size = (found.height, found.width)
        if size not in self._renderers:
            quality = self.model.vis.quality  # read when a renderer is made
            quality.shadowsize, quality.offsamples = FINE if camera == FRONT and self.fine_front else (0, 0)
            self._renderers[size] = mujoco.Renderer(self.model, *size)
        return self._renderers[size]
