# SPDX-License-Identifier: Apache-2.0
"""Every conversion between messages and the values of `core`, both ways.

Byte arrays cross as `array('B')`: rclpy copies that in one step, and an ndarray byte by byte.
"""

import contextlib
import io
import math
from array import array
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point, Pose, Quaternion
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage
from sensor_msgs.msg import Image as ImageMsg
from sensor_msgs.msg import JointState as JointStateMsg
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from imagewam_ros.cameras.camera import Intrinsics
from imagewam_ros.control.report import State, Status
from imagewam_ros.core.embodiment import Camera
from imagewam_ros.core.errors import EmbodimentMismatch, StaleObservation
from imagewam_ros.core.joints import JointMerge
from imagewam_ros.core.schema import ActionChunk, Command, Floats, Image, JointState
from imagewam_ros.data.chunk_message import read_chunk
from imagewam_ros.data.chunk_message import stamp_ns as stamp_ns
from imagewam_ros.msg import ActionChunk as ActionChunkMsg
from imagewam_ros.msg import ExecutorCommand as ExecutorCommandMsg
from imagewam_ros.msg import ExecutorEvent, ExecutorStatus
from imagewam_ros.sim.controllers import Trajectory

ENCODINGS = ("rgb8", "bgr8")
MOST_ROWS = 2000
"""Of a chunk; ten seconds at 200 Hz, and no work for the control thread that would make it late."""
LARGER = 4
"""A compressed picture may have this many times the camera's pixels and still be decoded, to say which size it has."""
NS = 1_000_000_000
Sample = tuple[Floats, Floats, Floats]
"""Position, velocity and acceleration of some joints."""


def to_time(ns: int) -> Time:
    """Stamp of int nanoseconds."""
    return Time(sec=ns // NS, nanosec=ns % NS)


def to_image(message: ImageMsg | CompressedImage, camera: Camera) -> Image:
    """Return uint8 RGB [H, W, 3] of exactly the camera's size. Raises EmbodimentMismatch.

    Raw images must be rgb8 or bgr8, or of an encoding that cv_bridge converts where it is installed; compressed
    ones anything that OpenCV reads.
    """
    image = _decompressed(message, camera) if isinstance(message, CompressedImage) else _raw(message, camera)
    height, width = image.shape[:2]
    if (height, width) != (camera.height, camera.width):
        raise EmbodimentMismatch(
            f"camera {camera.name!r} sends {width}x{height}, the robot YAML says {camera.width}x{camera.height}; "
            f"change the driver's resolution or the YAML ({camera.topic})"
        )
    return image


def _raw(message: ImageMsg, camera: Camera) -> Image:
    if message.encoding not in ENCODINGS:
        return _bridged(message, camera)
    size, row = message.height * message.step, 3 * message.width
    if message.step < row or len(message.data) != size:
        raise EmbodimentMismatch(
            f"camera {camera.name!r} sends {len(message.data)} bytes with rows of {message.step}, "
            f"expected {message.height} rows of at least {row} bytes ({camera.topic})"
        )
    rows = np.frombuffer(message.data, dtype=np.uint8).reshape(message.height, message.step)
    pixels = rows[:, :row].reshape(message.height, message.width, 3)
    return np.ascontiguousarray(pixels[..., ::-1] if message.encoding == "bgr8" else pixels)


def _bridged(message: ImageMsg, camera: Camera) -> Image:
    """Convert a rarer encoding, such as yuv422_yuy2 or bayer_rggb8, by cv_bridge."""
    says = f"camera {camera.name!r} sends encoding {message.encoding!r}, expected {' or '.join(ENCODINGS)}"
    try:
        from cv_bridge import CvBridge, CvBridgeError
    except ImportError as error:
        raise EmbodimentMismatch(
            f"{says}; set the driver's format, or install cv_bridge, which converts others ({camera.topic}): {error}"
        ) from error
    try:
        return np.ascontiguousarray(CvBridge().imgmsg_to_cv2(message, desired_encoding="rgb8"), dtype=np.uint8)
    except CvBridgeError as error:
        raise EmbodimentMismatch(f"{says}, and cv_bridge cannot convert it: {error} ({camera.topic})") from error


def _decompressed(message: CompressedImage, camera: Camera) -> Image:
    """Decode, but no picture that says that it is much larger than the camera's: it could take all memory."""
    import cv2
    from PIL import Image as Picture

    try:
        with contextlib.suppress(OSError), Picture.open(io.BytesIO(message.data)) as picture:  # reads the header only
            if picture.width * picture.height > LARGER * camera.width * camera.height:
                raise EmbodimentMismatch(
                    f"camera {camera.name!r} sends a picture of {picture.width}x{picture.height}, the robot YAML says "
                    f"{camera.width}x{camera.height}; it is not decoded ({camera.topic}/compressed)"
                )
    except (Picture.DecompressionBombError, ValueError) as error:
        raise EmbodimentMismatch(
            f"camera {camera.name!r} sends a picture that is not decoded: {error} ({camera.topic}/compressed)"
        ) from error
    image = cv2.imdecode(np.frombuffer(message.data, dtype=np.uint8), cv2.IMREAD_COLOR_RGB) if message.data else None
    if image is None:
        raise EmbodimentMismatch(
            f"camera {camera.name!r} sends {len(message.data)} bytes of format {message.format!r} that cannot be "
            f"decoded; use jpeg or png ({camera.topic}/compressed)"
        )
    return np.asarray(image, dtype=np.uint8)


def from_image(image: Image, time_ns: int, frame: str) -> ImageMsg:
    """Return an rgb8 message of uint8 RGB [H, W, 3]."""
    height, width = image.shape[:2]
    data = array("B")
    data.frombytes(np.ascontiguousarray(image).tobytes())
    message = ImageMsg(height=height, width=width, encoding="rgb8", step=3 * width, data=data)
    message.header.stamp, message.header.frame_id = to_time(time_ns), frame
    return message


def from_depth(depth_mm: NDArray[np.uint16], time_ns: int, frame: str) -> ImageMsg:
    """Return a 16UC1 message of uint16 [H, W] in mm (REP 118)."""
    height, width = depth_mm.shape
    data = array("B")
    data.frombytes(np.ascontiguousarray(depth_mm, dtype="<u2").tobytes())
    message = ImageMsg(height=height, width=width, encoding="16UC1", step=2 * width, data=data)
    message.header.stamp, message.header.frame_id = to_time(time_ns), frame
    return message


def from_jpeg(image: Image, time_ns: int, frame: str, quality: int) -> CompressedImage:
    """Return uint8 RGB [H, W, 3] as image_transport's JPEG; quality is 1 to 100."""
    import cv2

    _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    message = CompressedImage(format="rgb8; jpeg compressed bgr8", data=array("B", encoded.tobytes()))
    message.header.stamp, message.header.frame_id = to_time(time_ns), frame
    return message


def from_intrinsics(camera: Camera, field_of_view_rad: float, time_ns: int) -> CameraInfo:
    """Return camera_info of a pinhole with square pixels, its centre in the middle; the angle is the vertical one."""
    focal_px = camera.height / 2 / math.tan(field_of_view_rad / 2)
    cx, cy = (camera.width - 1) / 2, (camera.height - 1) / 2
    found = Intrinsics(camera.width, camera.height, focal_px, focal_px, cx, cy)
    return from_calibration(found, time_ns, camera.frame)


def from_calibration(found: Intrinsics, time_ns: int, frame: str) -> CameraInfo:
    """Return camera_info of one camera of no stereo pair; an uncalibrated one has a K of zeros."""
    scale = 1.0 if found.fx else 0.0
    message = CameraInfo(height=found.height, width=found.width, distortion_model=found.distortion_model)
    message.d = list(found.coefficients)
    message.k = [found.fx, 0.0, found.cx, 0.0, found.fy, found.cy, 0.0, 0.0, scale]
    message.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    message.p = [found.fx, 0.0, found.cx, 0.0, 0.0, found.fy, found.cy, 0.0, 0.0, 0.0, scale, 0.0]
    message.header.stamp, message.header.frame_id = to_time(time_ns), frame
    return message


@lru_cache(maxsize=16)
def _order(found: tuple[str, ...], wanted: tuple[str, ...]) -> "np.ndarray[tuple[int], np.dtype[np.intp]]":
    """Index of each wanted name among the found ones. Raises EmbodimentMismatch."""
    missing = [name for name in wanted if name not in found]
    if missing:
        raise EmbodimentMismatch(
            f"joint_states lacks {', '.join(missing)}; found {', '.join(found) or 'no names'}. "
            "Do the driver's joint names equal the robot YAML's?"
        )
    return np.array([found.index(name) for name in wanted], dtype=np.intp)


def to_joint_state(message: JointStateMsg, joint_names: tuple[str, ...]) -> JointState:
    """Return the named joints in the order of `joint_names`; absent velocities are 0.

    Raises EmbodimentMismatch for missing joints and StaleObservation for values that are no numbers.
    """
    order = _order(tuple(message.name), joint_names)
    if len(message.position) != len(message.name):
        raise EmbodimentMismatch(
            f"joint_states names {len(message.name)} joints and gives {len(message.position)} positions"
        )
    position = np.frombuffer(message.position, dtype=np.float64)[order]
    if not np.isfinite(position).all():
        bad = [name for name, value in zip(joint_names, position, strict=True) if not np.isfinite(value)]
        raise StaleObservation(f"joint_states: position of {', '.join(bad)} is not a number; is the encoder alive?")
    has_velocity = len(message.velocity) == len(message.name)
    velocity = np.frombuffer(message.velocity, dtype=np.float64)[order] if has_velocity else np.zeros(len(order))
    return JointState(stamp_ns(message.header.stamp), joint_names, position, np.nan_to_num(velocity))


def merge_joint_state(message: JointStateMsg, merge: JointMerge) -> tuple[str, ...]:
    """Add a message to `merge` and return the arms of which every joint is newer now."""
    position = np.frombuffer(message.position, dtype=np.float64)
    velocity = np.frombuffer(message.velocity, dtype=np.float64)
    return merge.add(stamp_ns(message.header.stamp), message.name, position, velocity)


def from_joint_state(state: JointState) -> JointStateMsg:
    """Return sensor_msgs/JointState with positions and velocities."""
    message = JointStateMsg(
        name=list(state.joint_names), position=_doubles(state.position), velocity=_doubles(state.velocity)
    )
    message.header.stamp = to_time(state.stamp_ns)
    return message


def to_chunk(message: ActionChunkMsg) -> ActionChunk:
    """Return the chunk as `read_chunk` does. Raises EmbodimentMismatch for a wrong shape and for too many rows."""
    if message.rows > MOST_ROWS:
        raise EmbodimentMismatch(f"chunk {message.sequence} holds {message.rows} rows, at most {MOST_ROWS} are taken")
    return read_chunk(message)


def from_chunk(chunk: ActionChunk) -> ActionChunkMsg:
    """Return the message of a chunk."""
    message = ActionChunkMsg(
        schema=chunk.schema,
        sequence=chunk.sequence,
        source=int(chunk.source),
        ready=to_time(chunk.ready_ns),
        instruction_id=chunk.instruction_id,
        contract_hash=chunk.contract_hash,
        period_ns=chunk.period_ns,
        first_row_offset_periods=chunk.first_row_offset_periods,
        joint_names=list(chunk.joint_names),
        rows=chunk.rows,
        positions=_doubles(chunk.positions.ravel()),
        committed_rows=chunk.committed_rows,
        spread=array("f", chunk.spread.astype(np.float32).tobytes()),
        seed=chunk.seed,
        denoise_steps=chunk.denoise_steps,
        inference_s=chunk.inference_s,
    )
    message.header.stamp = to_time(chunk.stamp_ns)
    return message


def from_command(command: Command, sent_ns: int) -> ExecutorCommandMsg:
    """Return the log entry of a sent sample."""
    message = ExecutorCommandMsg(
        tick=command.tick,
        nominal=to_time(command.nominal_ns),
        period_ns=command.period_ns,
        joint_names=list(command.joint_names),
        position=_doubles(command.position),
        velocity=_doubles(command.velocity),
        acceleration=_doubles(command.acceleration),
    )
    message.header.stamp = to_time(sent_ns)
    return message


def to_command(message: ExecutorCommandMsg) -> Command:
    """Return the sample of a log entry."""
    return Command(
        tick=message.tick,
        nominal_ns=stamp_ns(message.nominal),
        period_ns=message.period_ns,
        joint_names=tuple(message.joint_names),
        position=np.frombuffer(message.position, dtype=np.float64),
        velocity=np.frombuffer(message.velocity, dtype=np.float64),
        acceleration=np.frombuffer(message.acceleration, dtype=np.float64),
    )


STATES = {
    State.UNCONFIGURED: ExecutorStatus.INACTIVE,
    State.INACTIVE: ExecutorStatus.INACTIVE,
    State.HOLDING: ExecutorStatus.HOLDING,
    State.RUNNING: ExecutorStatus.ACTIVE,
    State.TAKEOVER: ExecutorStatus.TAKEOVER,
    State.FAULTED: ExecutorStatus.FAULTED,
}


def from_status(status: Status, chunk: ActionChunk | None, rate_hz: float, time_ns: int) -> ExecutorStatus:
    """Return the status, with what the newest accepted chunk says about itself."""
    message = ExecutorStatus(
        state=STATES[status.state],
        reason="" if status.state is State.RUNNING else status.reason,
        tick=status.tick,
        accepted=status.accepted,
        refused=sum(status.refused.values()),
        refusal=status.last_refusal,
        limited_ticks=status.limited_ticks,
        late_ticks=status.late_ticks,
        rate_hz=rate_hz,
        taken_over=list(status.taken_over),
        braked_ticks=status.braked_ticks,
        guarded_ticks=status.guarded_ticks,
        starved_ticks=status.starved_ticks,
        time_jumps=status.time_jumps,
        arms=list(status.travel),
        travel_predicted=[travel.predicted for travel in status.travel.values()],
        travel_executed=[travel.executed for travel in status.travel.values()],
        gripper_events=[travel.gripper_predicted for travel in status.travel.values()],
        gripper_events_lost=[travel.gripper_lost for travel in status.travel.values()],
    )
    if chunk is not None:
        message.sequence, message.source, message.contract_hash = chunk.sequence, int(chunk.source), chunk.contract_hash
        message.remaining_s = max(chunk.due_ns(chunk.rows - 1) - status.nominal_ns, 0) / 1e9
    message.header.stamp = to_time(time_ns)
    return message


def from_event(state: State, tick: int, trigger: str, reason: str, time_ns: int) -> ExecutorEvent:
    """Return an event after `tick` that no chunk was judged in."""
    message = ExecutorEvent(
        tick=tick, trigger=trigger, state=STATES[state], reason=reason, source=ExecutorEvent.NO_CHUNK
    )
    message.header.stamp = to_time(time_ns)
    return message


def from_values(values: Floats) -> Float64MultiArray:
    """Return what a forward controller takes."""
    return Float64MultiArray(data=_doubles(values))


def to_values(message: Float64MultiArray) -> Floats:
    """Return the values sent to a forward controller."""
    return np.frombuffer(message.data, dtype=np.float64).copy()


def from_target(command: Command, time_ns: int) -> JointStateMsg:
    """Return the sample as sensor_msgs/JointState, which Isaac Sim takes as a command."""
    message = JointStateMsg(
        name=list(command.joint_names), position=_doubles(command.position), velocity=_doubles(command.velocity)
    )
    message.header.stamp = to_time(time_ns)
    return message


def from_trajectory(
    joint_names: Sequence[str],
    start_ns: int,
    offsets_ns: Sequence[int],
    samples: Sequence[Sample],
) -> JointTrajectory:
    """Return points (position, velocity, acceleration), each due at `start_ns` + its offset."""
    message = JointTrajectory(joint_names=list(joint_names))
    message.header.stamp = to_time(start_ns)
    for offset, (position, velocity, acceleration) in zip(offsets_ns, samples, strict=True):
        message.points.append(
            JointTrajectoryPoint(
                positions=_doubles(position),
                velocities=_doubles(velocity),
                accelerations=_doubles(acceleration),
                time_from_start=Duration(sec=offset // NS, nanosec=offset % NS),
            )
        )
    return message


def to_trajectory(message: JointTrajectory) -> Trajectory:
    """Return what a simulated trajectory controller takes; a field is absent unless every point has it."""

    def field(name: str) -> Floats | None:
        rows = [np.array(getattr(point, name), dtype=np.float64) for point in message.points]
        return np.array(rows) if rows and all(len(row) == len(message.joint_names) for row in rows) else None

    times = tuple(int(p.time_from_start.sec) * NS + p.time_from_start.nanosec for p in message.points)
    positions = field("positions")
    return Trajectory(
        joint_names=tuple(message.joint_names),
        times_ns=times,
        positions=np.zeros((0, len(message.joint_names))) if positions is None else positions,
        velocities=field("velocities"),
        accelerations=field("accelerations"),
        stamp_ns=stamp_ns(message.header.stamp),
    )


def from_pose(pose: Floats) -> Pose:
    """Write a pose (7,): position in m, then quaternion wxyz."""
    x, y, z, qw, qx, qy, qz = (float(value) for value in pose)
    return Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(w=qw, x=qx, y=qy, z=qz))


def to_pose(message: Pose) -> Floats:
    """Read a pose (7,): position in m, then quaternion wxyz."""
    place, turn = message.position, message.orientation
    return np.array([place.x, place.y, place.z, turn.w, turn.x, turn.y, turn.z])


def _doubles(values: Floats) -> "array[float]":
    return array("d", np.ascontiguousarray(values, dtype=np.float64).tobytes())
