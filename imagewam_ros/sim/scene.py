# SPDX-License-Identifier: Apache-2.0
"""The cell's MuJoCo model: the URDF, plus only what a URDF cannot say.

Added here: position servos, reflected inertia, friction, cameras on the optical frames, table,
light and the task's objects. Geometry, masses and limits come from the URDF.
"""

from dataclasses import dataclass

import numpy as np

from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.sim.gl import mujoco
from imagewam_ros.sim.tasks import Task

PHYSICS_NS = 2_500_000
"""One physics step; two of them make one control period at 200 Hz."""
ARENA_BYTES = 1 << 20
"""Room for contacts and constraints; a small one makes copies of the state cheap."""
COMPILER = '<mujoco><compiler angle="radian" discardvisual="false" fusestatic="false" balanceinertia="true"/></mujoco>'
FRONT = "front"
FRONT_SIZE = (480, 640)
"""The spectator's camera, height and width; no policy sees it."""
FRONT_POSITION, FRONT_TARGET = (1.12, -0.52, 0.66), (0.19, 0.02, 0.13)
WOOD, STEEL, FLOOR = (0.80, 0.70, 0.57, 1), (0.45, 0.46, 0.48, 1), (0.46, 0.48, 0.51, 1)
OPTICAL_QUAT = (0.0, 1.0, 0.0, 0.0)
"""From a ROS optical frame (z forward, y down) to a MuJoCo camera (z backward, y up)."""
FIELD_OF_VIEW = {"head": 60.0, "left_wrist": 70.0, "right_wrist": 70.0}


@dataclass(frozen=True)
class Servo:
    """A joint's drive: stiffness and damping of its position loop and reflected inertia, SI units."""

    stiffness: float
    damping: float
    armature: float


SERVOS = {
    "waist": Servo(400, 20, 0.1),
    "shoulder": Servo(600, 30, 0.1),
    "elbow": Servo(400, 20, 0.1),
    "forearm_roll": Servo(120, 5, 0.02),
    "wrist_pitch": Servo(120, 5, 0.02),
    "wrist_roll": Servo(60, 2.5, 0.01),
    "gripper": Servo(2000, 40, 0.05),
}


def build_model(urdf: str, embodiment: Embodiment, task: Task) -> mujoco.MjModel:
    """Compile the robot of a URDF text with the task's objects on its table.

    Raises ConfigError for a robot whose drives are not described here.
    """
    unknown = [name for name in embodiment.joint_names if _kind(name) not in SERVOS]
    if unknown:
        raise ConfigError(
            f"robot {embodiment.name!r} has no MuJoCo twin: the drives of {', '.join(unknown)} are not described; "
            "simulate sim_cell, or run this robot in Gazebo or on mock hardware"
        )
    opening = urdf.index(">", urdf.index("<robot")) + 1
    spec = mujoco.MjSpec.from_string(urdf[:opening] + COMPILER + urdf[opening:])
    _set_options(spec)
    _tune_bodies(spec)
    _add_servos(spec, embodiment)
    _add_cameras(spec, embodiment)
    _add_room(spec)
    task.add_objects(spec)
    return spec.compile()


def _set_options(spec: mujoco.MjSpec) -> None:
    spec.modelname = "imagewam_cell"
    spec.memory = ARENA_BYTES
    spec.option.timestep = PHYSICS_NS / 1e9
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10
    spec.visual.quality.shadowsize = 0  # with shadows and anti-aliasing an image costs ten times as much
    spec.visual.quality.offsamples = 0
    # Under directional light coarse shapes look the same, and a 128 px image takes a third of the time.
    spec.visual.quality.numslices, spec.visual.quality.numstacks, spec.visual.quality.numquads = 24, 2, 2
    spec.visual.map.shadowclip = 1.2
    spec.visual.headlight.ambient = [0.32, 0.32, 0.32]
    spec.visual.headlight.diffuse = [0.15, 0.15, 0.15]
    spec.visual.headlight.specular = [0.0, 0.0, 0.0]


def _tune_bodies(spec: mujoco.MjSpec) -> None:
    """Cancel gravity as an arm's own controller does; hide collision shapes; make finger tips grip."""
    for body in spec.bodies:
        if body.name.startswith(("left_", "right_")):
            body.gravcomp = 1.0
    for geom in spec.geoms:
        if geom.contype:
            geom.group = 3
        if geom.contype and "_finger_" in geom.parent.name:
            geom.friction = [1.2, 0.02, 0.001]
            geom.condim = 4
            geom.solref = [0.006, 1]
    for side in ("left", "right"):
        spec.add_exclude(bodyname1=f"{side}_left_finger_link", bodyname2=f"{side}_right_finger_link")
    for equality in spec.equalities:  # the mimicking fingers, stiffer than the default
        equality.solref = [0.005, 1]


def _add_servos(spec: mujoco.MjSpec, embodiment: Embodiment) -> None:
    for joint in spec.joints:
        joint.armature = _servo(joint.name).armature
    for name in embodiment.joint_names:
        servo, joint = _servo(name), spec.joint(name)
        actuator = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        actuator.set_to_position(kp=servo.stiffness, kv=servo.damping)
        actuator.ctrlrange, actuator.ctrllimited = joint.range, 1
        actuator.forcerange = joint.actfrcrange


def _servo(joint: str) -> Servo:
    return SERVOS[_kind(joint)]


def _kind(joint: str) -> str:
    """Drive of a joint: its name without side."""
    return joint.partition("_")[2].removesuffix("_mimic")


def _add_cameras(spec: mujoco.MjSpec, embodiment: Embodiment) -> None:
    """Hang each camera on its optical frame and size the off-screen buffer for the largest."""
    for camera in embodiment.cameras:
        spec.body(camera.frame).add_camera(name=camera.name, quat=OPTICAL_QUAT, fovy=FIELD_OF_VIEW[camera.name])
    spec.visual.global_.offheight = max(FRONT_SIZE[0], *(camera.height for camera in embodiment.cameras))
    spec.visual.global_.offwidth = max(FRONT_SIZE[1], *(camera.width for camera in embodiment.cameras))


def _add_room(spec: mujoco.MjSpec) -> None:
    """Add table, floor, sky and two lamps. The table's top is z = 0."""
    box, cylinder, plane = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER, mujoco.mjtGeom.mjGEOM_PLANE
    world = spec.worldbody
    top = {"size": [0.45, 0.6, 0.02], "pos": [0.3, 0, -0.02], "friction": [0.8, 0.005, 0.0001]}
    world.add_geom(name="table", type=box, rgba=WOOD, **top)
    for x, y in ((-0.1, -0.55), (-0.1, 0.55), (0.7, -0.55), (0.7, 0.55)):
        leg = {"size": [0.02, 0.355, 0], "pos": [x, y, -0.395], "contype": 0, "conaffinity": 0}
        world.add_geom(type=cylinder, rgba=STEEL, **leg)
    world.add_geom(name="floor", type=plane, size=[4, 4, 0.1], pos=[0, 0, -0.75], rgba=FLOOR)
    sky = {"type": mujoco.mjtTexture.mjTEXTURE_SKYBOX, "builtin": mujoco.mjtBuiltin.mjBUILTIN_GRADIENT}
    spec.add_texture(name="sky", rgb1=[0.95, 0.96, 0.97], rgb2=[0.55, 0.60, 0.66], width=64, height=384, **sky)
    sun = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
    key, fill = {"pos": [0.6, 0.7, 1.6], "dir": [-0.25, -0.45, -1]}, {"pos": [0.6, -0.8, 1.4], "dir": [-0.2, 0.6, -0.8]}
    world.add_light(name="key", type=sun, castshadow=True, diffuse=[0.46, 0.45, 0.43], specular=[0.15] * 3, **key)
    world.add_light(name="fill", type=sun, castshadow=False, diffuse=[0.20, 0.21, 0.22], specular=[0] * 3, **fill)
    spec.worldbody.add_camera(name=FRONT, pos=FRONT_POSITION, xyaxes=_looking(FRONT_POSITION, FRONT_TARGET), fovy=45)


def _looking(position: tuple[float, ...], target: tuple[float, ...]) -> list[float]:
    """MuJoCo's xyaxes of a level camera at `position` that looks at `target`."""
    back = np.subtract(position, target)
    right = np.cross((0.0, 0.0, 1.0), back)
    up = np.cross(back, right)
    return [*(right / np.linalg.norm(right)), *(up / np.linalg.norm(up))]
