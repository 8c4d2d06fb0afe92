# SPDX-License-Identifier: Apache-2.0
"""The simulated cell on the topics that ros2_control and camera drivers would use.

Nothing downstream can tell it from hardware: joint_states, images, camera_info and the command
topics of the controllers. On top it publishes /clock, sim/status and the poses of its objects, and offers sim/reset.
"""

import math
from dataclasses import dataclass

from geometry_msgs.msg import PoseArray
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image as ImageMsg
from sensor_msgs.msg import JointState as JointStateMsg

from imagewam_ros.core.embodiment import Camera, load_embodiment
from imagewam_ros.core.errors import ConfigError, unknown_name
from imagewam_ros.core.schema import Image, JointState
from imagewam_ros.msg import SimStatus
from imagewam_ros.nodes import messages, parameters, qos, topics
from imagewam_ros.nodes.lifecycle import ManagedNode
from imagewam_ros.nodes.live_cell import FRONT, LiveCell
from imagewam_ros.nodes.sim_controllers import KINDS, SimControllers
from imagewam_ros.nodes.spin import run
from imagewam_ros.sim.cell import Cell
from imagewam_ros.sim.scene import FRONT_SIZE
from imagewam_ros.srv import ResetScene

FRONT_CAMERA = Camera(FRONT, topics.FRONT_IMAGE, "front_camera_color_optical_frame", FRONT_SIZE[1], FRONT_SIZE[0], 0.0)


@dataclass(frozen=True)
class SimConfig:
    """controller names what runs on the arms. speed is simulated seconds per second.

    front_rate_hz is that of a fourth camera for people, 0 for none.
    """

    robot: str = "sim_cell"
    task: str = "tray_lift"
    seed: int = 0
    speed: float = 1.0
    randomise: bool = True
    controller: str = "forward"
    front_rate_hz: float = 0.0
    status_rate_hz: float = 10.0

    def __post_init__(self) -> None:
        if self.controller not in KINDS:
            raise ConfigError(unknown_name("controller", self.controller, KINDS))
        if not 0.05 <= self.speed <= 20:
            raise ConfigError(f"speed must be 0.05 to 20, found {self.speed}")
        if not 0 <= self.front_rate_hz <= 60 or not 1 <= self.status_rate_hz <= 50:
            raise ConfigError("front_rate_hz is 0 to 60 and status_rate_hz 1 to 50")


class SimNode(ManagedNode):
    """Publish what LiveCell produces and hand it the commands that arrive."""

    def __init__(self) -> None:
        super().__init__("sim")

    def setup(self) -> None:
        """Build the cell and its topics."""
        config = parameters.declare(self, SimConfig)
        simulated = bool(self.get_parameter("use_sim_time").value)
        if config.speed != 1.0 and not simulated:
            raise ConfigError(f"speed {config.speed} needs use_sim_time:=true on every node, or their clocks disagree")
        robot = load_embodiment(config.robot)
        cell = Cell(robot, config.task, config.randomise)
        cell.reset(config.seed)
        rates = {camera.name: camera.rate_hz for camera in robot.cameras} | {FRONT: config.front_rate_hz}
        self._live = LiveCell(cell, self, rates, config.speed, simulated_clock=simulated)
        self.cleanup.callback(self._live.close)
        self._controllers = SimControllers(self, robot, config.controller, lambda: self._live.now_ns)
        self._live.warm()
        self._reset(config.seed)
        self._publish_on((*robot.cameras, *([FRONT_CAMERA] if config.front_rate_hz else [])))
        self.serve(ResetScene, topics.SIM_RESET, self._on_reset)
        self.every(1.0 / config.status_rate_hz, self._publish_status)

    def start(self) -> None:
        """Let time run."""
        self._live.start()

    def stop(self, reason: str) -> None:
        """Freeze time."""
        self._live.stop()

    def on_joints(self, state: JointState) -> None:
        """Publish the time, then the joints."""
        self._clock_out.publish(Clock(clock=messages.to_time(state.stamp_ns)))
        self._joints_out.publish(messages.from_joint_state(state))
        self.diagnostics.meter.count("joint_states")

    def on_image(self, camera: str, image: Image, stamp_ns: int) -> None:
        """Publish an image and its intrinsics."""
        about, angle_rad, images, infos = self._images_out[camera]
        images.publish(messages.from_image(image, stamp_ns, about.frame))
        infos.publish(messages.from_intrinsics(about, angle_rad, stamp_ns))
        self.diagnostics.meter.count(camera)

    def on_trouble(self, reason: str) -> None:
        """Report that the cell stands still."""
        self.complain(reason)

    def _publish_on(self, cameras: tuple[Camera, ...]) -> None:
        self._clock_out = self.publisher(Clock, "/clock", qos.CLOCK_OUT)
        self._joints_out = self.publisher(JointStateMsg, topics.JOINT_STATES, qos.JOINT_STATES_OUT)
        self._status_out = self.publisher(SimStatus, topics.SIM_STATUS, qos.STATUS)
        self._objects_out = self.publisher(PoseArray, topics.SIM_OBJECTS, qos.STATUS)
        self._images_out = {
            camera.name: (
                camera,
                math.radians(self._live.cell.model.camera(camera.name).fovy[0]),
                self.publisher(ImageMsg, camera.topic, qos.IMAGES_OUT),
                self.publisher(CameraInfo, topics.camera_info(camera.topic), qos.IMAGES_OUT),
            )
            for camera in cameras
        }

    def _reset(self, seed: int) -> str:
        self._seed = seed
        return self._live.reset(seed, self._controllers.make)

    def _on_reset(self, request: ResetScene.Request, response: ResetScene.Response) -> str:
        response.instruction = self._reset(request.seed)
        self._publish_status()
        return f"scene of seed {request.seed}"

    def _publish_status(self) -> None:
        cell, objects = self._live.cell, self._live.objects()
        message = SimStatus(
            seed=self._seed,
            task=cell.task_name,
            instruction=cell.instruction,
            success=self._live.success,
            episode_time_s=cell.time_ns / 1e9,
            real_time_factor=self._live.real_time_factor,
            object_names=list(objects),
            object_heights_m=[float(pose[2]) for pose in objects.values()],
        )
        message.header.stamp = messages.to_time(self._live.now_ns)
        self._status_out.publish(message)
        self._objects_out.publish(
            PoseArray(header=message.header, poses=list(map(messages.from_pose, objects.values())))
        )


def main() -> int:
    """Run the node."""
    return run(SimNode)
