# SPDX-License-Identifier: Apache-2.0
"""Vary what a real cell never holds constant: colours, light, camera mounts, friction, masses."""

import numpy as np

from imagewam_ros.sim.gl import mujoco

SHADE, HUE = 0.08, 0.03
"""Every paint becomes lighter or darker, and each of its channels shifts a little."""
CAMERA_M, CAMERA_RAD, LIGHT = 0.01, 0.015, 0.25
BRIGHTNESS, FRICTION, MASS = (0.7, 1.25), (0.85, 1.15), (0.9, 1.1)


class Appearance:
    """Remembers a model as built, so that every episode varies around it and not around the last."""

    def __init__(self, model: mujoco.MjModel, keep_cameras: tuple[str, ...] = ()) -> None:
        self.model = model
        fields = ("geom_rgba", "cam_pos", "cam_quat", "light_diffuse", "light_dir", "geom_friction", "body_mass")
        self._built = {name: getattr(model, name).copy() for name in fields}
        _, self._paint = np.unique(model.geom_rgba, axis=0, return_inverse=True)
        self._moving = np.array([[model.cam(i).name not in keep_cameras] for i in range(model.ncam)], dtype=float)

    def vary(self, rng: np.random.Generator) -> None:
        """Draw a new cell around the built one, in place."""
        built, model = self._built, self.model
        paints = self._paint.max() + 1
        shift = rng.uniform(-SHADE, SHADE, (paints, 1)) + rng.uniform(-HUE, HUE, (paints, 3))
        model.geom_rgba[:, :3] = np.clip(built["geom_rgba"][:, :3] + shift[self._paint], 0, 1)
        model.cam_pos[:] = built["cam_pos"] + self._moving * rng.uniform(-CAMERA_M, CAMERA_M, (model.ncam, 3))
        turn = self._moving * rng.uniform(-CAMERA_RAD, CAMERA_RAD, (model.ncam, 3))
        for i, vector in enumerate(turn):
            quat = np.array(built["cam_quat"][i])
            mujoco.mju_quatIntegrate(quat, vector, 1.0)
            model.cam_quat[i] = quat
        model.light_diffuse[:] = built["light_diffuse"] * rng.uniform(*BRIGHTNESS)
        toward = built["light_dir"] + rng.uniform(-LIGHT, LIGHT, (model.nlight, 3))
        model.light_dir[:] = toward / np.linalg.norm(toward, axis=1, keepdims=True)
        model.geom_friction[:, 0] = built["geom_friction"][:, 0] * rng.uniform(*FRICTION)
        model.body_mass[:] = built["body_mass"] * rng.uniform(*MASS)
