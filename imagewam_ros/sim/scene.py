# SPDX-License-Identifier: Apache-2.0
"""The cell's MuJoCo model: the URDF, plus only what a URDF cannot say.

Added here: position servos, reflected inertia, friction, cameras on the optical frames, table,
light and the task's objects. Geometry, masses and limits come from the URDF.
"""

from dataclasses import dataclass

from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.kinematics.description import expand
from imagewam_ros.sim.gl import mujoco
from imagewam_ros.sim.tasks import Task

PHYSICS_NS = 2_500_000
"""One physics step; two of them make one control period at 200 Hz."""
COMPILER = '<mujoco><compiler angle="radian" discardvisual="false" fusestatic="false" balanceinertia="true"/></mujoco>'
FRONT = "front"
FRONT_SIZE = (480, 640)
"""The spectator's camera, height and width; no policy sees it."""
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


def build_model(embodiment: Embodiment, task: Task) -> mujoco.MjModel:
    """Compile the cell with the task's objects on its table."""
    urdf = expand()
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
    spec.option.timestep = PHYSICS_NS / 1e9
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10
    spec.visual.quality.shadowsize = 0
    spec.visual.quality.offsamples = 0
    spec.visual.headlight.ambient = [0.30, 0.30, 0.30]
    spec.visual.headlight.diffuse = [0.25, 0.25, 0.25]
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
    kind = joint.split("_", 1)[1].removesuffix("_mimic")
    return SERVOS[kind]


def _add_cameras(spec: mujoco.MjSpec, embodiment: Embodiment) -> None:
    """Hang each camera on its optical frame and size the off-screen buffer for the largest."""
    for camera in embodiment.cameras:
        spec.body(camera.frame).add_camera(name=camera.name, quat=OPTICAL_QUAT, fovy=FIELD_OF_VIEW[camera.name])
    spec.worldbody.add_camera(name=FRONT, pos=[1.15, 0, 0.75], xyaxes=[0, 1, 0, -0.55, 0, 0.83], fovy=55)
    spec.visual.global_.offheight = max(FRONT_SIZE[0], *(camera.height for camera in embodiment.cameras))
    spec.visual.global_.offwidth = max(FRONT_SIZE[1], *(camera.width for camera in embodiment.cameras))


def _add_room(spec: mujoco.MjSpec) -> None:
    box, plane = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_PLANE
    world = spec.worldbody
    wood = [0.76, 0.66, 0.53, 1]
    world.add_geom(
        name="table", type=box, size=[0.45, 0.6, 0.02], pos=[0.3, 0, -0.02], rgba=wood, friction=[0.8, 0.005, 0.0001]
    )
    world.add_geom(name="floor", type=plane, size=[3, 3, 0.1], pos=[0, 0, -0.75], rgba=[0.35, 0.38, 0.42, 1])
    key, fill = [0.1, -0.35, -1], [-0.2, 0.5, -1]
    world.add_light(name="key", pos=[0.2, 0.6, 1.6], dir=key, castshadow=True, diffuse=[0.6, 0.6, 0.6])
    world.add_light(name="fill", pos=[0.6, -0.8, 1.4], dir=fill, castshadow=False, diffuse=[0.35, 0.35, 0.35])
