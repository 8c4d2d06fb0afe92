# SPDX-License-Identifier: Apache-2.0
"""The cell in Isaac Sim: imports the URDF, drives its joints, speaks the topics of imagewam_ros.

Written from Isaac Sim's documentation for 5.x and later and never run: expect to correct a name or two.
It runs under Isaac's own Python and imports nothing of imagewam_ros. Expand the description first:

    xacro urdf/dual_arm.urdf.xacro -o /tmp/cell.urdf
    PATH_TO_ISAAC/python.sh isaac/run_cell.py --urdf /tmp/cell.urdf
    imagewam up sim:=isaac use_sim_time:=true
"""

import argparse
import math

from isaacsim import SimulationApp

CAMERAS = {"head": 60.0, "left_wrist": 70.0, "right_wrist": 70.0}
"""Horizontal field of view, degrees, by camera; images are square."""

PIXELS = 128
STIFFNESS, DAMPING = 1.0e4, 1.0e3
PHYSICS_HZ, CAMERA_EVERY = 200.0, 3
"""Images are published in every third rendered frame of 60 Hz."""

JOINT_STATES, JOINT_COMMAND, CLOCK = "joint_states", "joint_command", "/clock"
BRIDGES = ("isaacsim.ros2.bridge", "isaacsim.ros2.nodes")
"""Prefixes of the ROS 2 nodes of OmniGraph: of 5.x, and of what comes after."""

parser = argparse.ArgumentParser(description="Run the cell in Isaac Sim.")
parser.add_argument("--urdf", required=True, help="URDF of the cell, expanded by xacro")
parser.add_argument("--headless", action="store_true", help="without a window")
arguments = parser.parse_args()
app = SimulationApp({"headless": arguments.headless})

# Isaac's modules exist once the application runs.
import omni.graph.core as og  # noqa: E402
import omni.kit.commands  # noqa: E402
import omni.usd  # noqa: E402
from isaacsim.core.api import World  # noqa: E402
from isaacsim.core.utils.extensions import enable_extension  # noqa: E402
from pxr import Gf, Sdf, UsdGeom, UsdLux, UsdPhysics  # noqa: E402


def main() -> None:
    """Build the cell and step it until the window closes."""
    for extension in ("isaacsim.asset.importer.urdf", "isaacsim.ros2.bridge"):
        enable_extension(extension)
    app.update()
    world = World(stage_units_in_meters=1.0, physics_dt=1.0 / PHYSICS_HZ, rendering_dt=1.0 / 60.0)
    robot = import_robot(arguments.urdf)
    stage = omni.usd.get_context().get_stage()
    add_room(stage)
    cameras = {name: add_camera(stage, name, degrees) for name, degrees in CAMERAS.items()}
    connect(robot, cameras)
    world.reset()
    while app.is_running():
        world.step(render=True)
    app.close()


def import_robot(path: str) -> str:
    """Import the URDF with a fixed base and position drives. Returns the path of the articulation's root."""
    _, config = omni.kit.commands.execute("URDFCreateImportConfig")
    config.fix_base = True
    config.merge_fixed_joints = False  # the optical frames hang on fixed joints
    config.import_inertia_tensor = True
    config.parse_mimic = True
    config.distance_scale = 1.0
    config.default_drive_strength = STIFFNESS
    config.default_position_drive_damping = DAMPING
    _, robot = omni.kit.commands.execute(
        "URDFParseAndImportFile", urdf_path=path, import_config=config, get_articulation_root=True
    )
    return str(robot)


def add_room(stage: object) -> None:
    """Add a lamp, the table and a tray of 0.7 kg. The table's top is z = 0."""
    UsdLux.DistantLight.Define(stage, "/World/Key").CreateIntensityAttr(2000)
    add_box(stage, "/World/Table", (0.9, 1.2, 0.04), (0.3, 0.0, -0.02), (0.62, 0.47, 0.33))
    tray = UsdGeom.Xform.Define(stage, "/World/Tray")
    tray.AddTranslateOp().Set(Gf.Vec3d(0.35, 0.0, 0.006))
    UsdPhysics.RigidBodyAPI.Apply(tray.GetPrim())
    UsdPhysics.MassAPI.Apply(tray.GetPrim()).CreateMassAttr(0.7)
    add_box(stage, "/World/Tray/Plate", (0.16, 0.3, 0.01), (0.0, 0.0, 0.0), (0.72, 0.16, 0.15))
    for side, y in (("Left", 0.15), ("Right", -0.15)):
        add_box(stage, f"/World/Tray/{side}Handle", (0.06, 0.016, 0.06), (0.0, y, 0.03), (0.93, 0.74, 0.16))


def add_box(
    stage: object,
    path: str,
    size: tuple[float, float, float],
    centre: tuple[float, float, float],
    colour: tuple[float, float, float],
) -> None:
    """Add a box that others collide with; size and centre in m."""
    box = UsdGeom.Cube.Define(stage, path)
    box.CreateSizeAttr(1.0)
    box.AddTranslateOp().Set(Gf.Vec3d(*centre))
    box.AddScaleOp().Set(Gf.Vec3f(*size))
    box.CreateDisplayColorAttr([Gf.Vec3f(*colour)])
    UsdPhysics.CollisionAPI.Apply(box.GetPrim())


def add_camera(stage: object, name: str, degrees: float) -> str:
    """Hang a camera on its optical frame. Returns its path."""
    frame = f"{name}_camera_color_optical_frame"
    parent = next(prim.GetPath() for prim in stage.Traverse() if prim.GetName() == frame)  # type: ignore[attr-defined]
    camera = UsdGeom.Camera.Define(stage, parent.AppendChild("sensor"))
    # USD looks along -z with y up, an optical frame along z with y down.
    camera.AddRotateXOp().Set(180.0)
    camera.CreateHorizontalApertureAttr(20.0)
    camera.CreateVerticalApertureAttr(20.0)
    camera.CreateFocalLengthAttr(10.0 / math.tan(math.radians(degrees) / 2))
    camera.CreateClippingRangeAttr(Gf.Vec2f(0.01, 5.0))
    return str(camera.GetPath())


def connect(robot: str, cameras: dict[str, str]) -> None:
    """Publish joints, clock and images; take the executor's joint commands."""
    ros = next(prefix for prefix in BRIDGES if og.get_node_type(f"{prefix}.ROS2Context").is_valid())
    nodes = [
        ("tick", "omni.graph.action.OnPlaybackTick"),
        ("context", f"{ros}.ROS2Context"),
        ("time", "isaacsim.core.nodes.IsaacReadSimulationTime"),
        ("clock", f"{ros}.ROS2PublishClock"),
        ("states", f"{ros}.ROS2PublishJointState"),
        ("commands", f"{ros}.ROS2SubscribeJointState"),
        ("drives", "isaacsim.core.nodes.IsaacArticulationController"),
    ]
    values = [
        ("clock.inputs:topicName", CLOCK),
        ("states.inputs:topicName", JOINT_STATES),
        ("states.inputs:targetPrim", [Sdf.Path(robot)]),
        ("commands.inputs:topicName", JOINT_COMMAND),
        ("drives.inputs:robotPath", robot),
    ]
    wires = [("tick.outputs:tick", f"{node}.inputs:execIn") for node in ("clock", "states", "commands", "drives")]
    wires += [("context.outputs:context", f"{node}.inputs:context") for node in ("clock", "states", "commands")]
    wires += [("time.outputs:simulationTime", f"{node}.inputs:timeStamp") for node in ("clock", "states")]
    for port in ("jointNames", "positionCommand", "velocityCommand"):
        wires.append((f"commands.outputs:{port}", f"drives.inputs:{port}"))
    for name, path in cameras.items():
        nodes += [
            (f"{name}_render", "isaacsim.core.nodes.IsaacCreateRenderProduct"),
            (f"{name}_image", f"{ros}.ROS2CameraHelper"),
            (f"{name}_info", f"{ros}.ROS2CameraInfoHelper"),
        ]
        values += [
            (f"{name}_render.inputs:cameraPrim", [Sdf.Path(path)]),
            (f"{name}_render.inputs:width", PIXELS),
            (f"{name}_render.inputs:height", PIXELS),
            (f"{name}_image.inputs:type", "rgb"),
        ]
        wires.append(("tick.outputs:tick", f"{name}_render.inputs:execIn"))
        for kind, leaf in (("image", "image_raw"), ("info", "camera_info")):
            node = f"{name}_{kind}"
            values += [
                (f"{node}.inputs:topicName", f"{name}_camera/color/{leaf}"),
                (f"{node}.inputs:frameId", f"{name}_camera_color_optical_frame"),
                (f"{node}.inputs:frameSkipCount", CAMERA_EVERY - 1),
            ]
            wires += [
                (f"{name}_render.outputs:execOut", f"{node}.inputs:execIn"),
                (f"{name}_render.outputs:renderProductPath", f"{node}.inputs:renderProductPath"),
                ("context.outputs:context", f"{node}.inputs:context"),
            ]
    keys = og.Controller.Keys
    og.Controller.edit(
        {"graph_path": "/World/ROS2", "evaluator_name": "execution"},
        {keys.CREATE_NODES: nodes, keys.SET_VALUES: values, keys.CONNECT: wires},
    )


main()
