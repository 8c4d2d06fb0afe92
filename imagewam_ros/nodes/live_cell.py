# SPDX-License-Identifier: Apache-2.0
"""The simulated cell in real time: physics on one thread, cameras on another. No ROS in here.

Cameras are rendered from a copy of the state at their shutter, so a slow renderer delays images
and never the physics; an image that is still not drawn at the next shutter is left out.
"""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple, Protocol

import numpy as np

from imagewam_ros.core.schema import Floats, Image, JointState
from imagewam_ros.nodes.pacing import SteadyPacer
from imagewam_ros.sim.cell import Cell

TICK_NS = 5_000_000
"""Physics, controllers and joint_states: 200 Hz, as a joint_state_broadcaster would."""
SLACK_NS = 200_000_000
"""A machine that is this late slows the simulation down instead of hurrying after it."""
FRONT = "front"


class Controller(Protocol):
    """What turns received commands into joint targets."""

    def sample(self, now_ns: int, measured: Floats, velocity: Floats) -> Floats:
        """Return the targets of its joints."""
        ...


class Slice(NamedTuple):
    """A controller and the part of the joint vector that it drives."""

    part: slice
    controller: Controller


class Listener(Protocol):
    """Takes what the cell produces; called on the cell's threads."""

    def on_joints(self, state: JointState) -> None:
        """Joint state, stamped in the cell's clock."""
        ...

    def on_image(self, camera: str, image: Image, stamp_ns: int) -> None:
        """One image with the stamp of its shutter."""
        ...

    def on_trouble(self, reason: str) -> None:
        """Physics or drawing ended with an error."""
        ...


class LiveCell:
    """Run a cell at `speed` times real time and tells `listener` what it sees.

    Stamps count simulated time from the wall time of the start when `simulated_clock`, else they
    are the wall time, as a real robot's are. Simulated time never goes back, resets included.
    """

    def __init__(
        self, cell: Cell, listener: Listener, rates_hz: Mapping[str, float], speed: float, *, simulated_clock: bool
    ) -> None:
        self.cell, self.speed = cell, speed
        self.now_ns = time.time_ns()
        self.real_time_factor, self.skipped_images, self.success = 0.0, 0, False
        self._listener, self._simulated = listener, simulated_clock
        self._every = {camera: max(round(1e9 / rate / TICK_NS), 1) for camera, rate in rates_hz.items() if rate > 0}
        self._slices: tuple[Slice, ...] = ()
        self._physics, self._drawing = threading.Lock(), threading.Lock()
        self._running = False
        self._camera_thread, self._physics_thread = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._time = self._drawn = self._camera_thread.submit(self._warm)

    def reset(self, seed: int, make_controllers: Callable[[Floats], tuple[Slice, ...]]) -> str:
        """Start the episode of `seed` with controllers that hold its first position; returns the instruction."""
        with self._drawing, self._physics:
            self.cell.reset(seed)
            self.success = False
            self._slices = make_controllers(self.cell.joint_state().position)
            return self.cell.instruction

    def warm(self) -> None:
        """Wait until OpenGL has drawn each camera once. Raises ConfigError where it cannot."""
        self._drawn.result()

    def start(self) -> None:
        """Let time run."""
        self._running = True
        self._time = self._physics_thread.submit(self._run_physics)
        self._time.add_done_callback(self._report)

    def stop(self) -> None:
        """Freeze time. Safe to call twice."""
        self._running = False
        wait((self._time, self._drawn), 5.0)

    def close(self) -> None:
        """Stop and free the OpenGL contexts, which live on the camera thread."""
        self.stop()
        self._camera_thread.submit(self.cell.close).result(5.0)
        self._camera_thread.shutdown()
        self._physics_thread.shutdown()

    def objects(self) -> dict[str, Floats]:
        """Pose (7,) of every free object: position in m, height above the table last, then quaternion wxyz."""
        with self._physics:
            return self.cell.objects()

    def _run_physics(self) -> None:
        pacer = SteadyPacer(round(TICK_NS / self.speed), SLACK_NS)
        ticks, since_ns, factor_ticks = 0, time.monotonic_ns(), round(1e9 / TICK_NS)
        while self._running:
            pacer.wait()
            ticks += 1
            self._listener.on_joints(self._tick())
            self._press([camera for camera, every in self._every.items() if ticks % every == 0])
            if ticks % factor_ticks == 0:
                now = time.monotonic_ns()
                self.real_time_factor = factor_ticks * TICK_NS / (now - since_ns)
                since_ns = now

    def _tick(self) -> JointState:
        with self._physics:
            state = self.cell.joint_state()
            targets = np.array(state.position)
            for part, controller in self._slices:
                targets[part] = controller.sample(self.now_ns, state.position[part], state.velocity[part])
            self.cell.step(targets, TICK_NS)
            self.now_ns = self.now_ns + TICK_NS if self._simulated else time.time_ns()
            self.success = self.success or self.cell.success()
            state = self.cell.joint_state()
            return JointState(self.now_ns, state.joint_names, state.position, state.velocity)

    def _press(self, cameras: list[str]) -> None:
        """Open the shutters: copy the state for the camera thread."""
        if not cameras:
            return
        if not self._drawn.done():
            self.skipped_images += len(cameras)
            return
        self._drawn = self._camera_thread.submit(self._draw, cameras, self.now_ns, self.cell.snapshot())
        self._drawn.add_done_callback(self._report)

    def _draw(self, cameras: list[str], stamp_ns: int, state: object) -> None:
        for camera in cameras:
            with self._drawing:
                image = self.cell.render(camera, state)
            self._listener.on_image(camera, image, stamp_ns)

    def _warm(self) -> None:
        for camera in self._every:
            self.cell.render(camera)

    def _report(self, done: "Future[None]") -> None:
        if (error := done.exception()) is not None:
            self._listener.on_trouble(f"the simulated cell stands still: {type(error).__name__}: {error}")
