# SPDX-License-Identifier: Apache-2.0
"""The one lifecycle base: configure builds, activate starts, deactivate stops, cleanup removes.

rclpy swallows what a transition callback raises; this base logs it, puts the reason on
/diagnostics and leaves nothing half-built behind. Only it and the control thread, which must go on
to brake, catch broadly.
"""

import contextlib
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile

from imagewam_ros.core.errors import ImageWamError
from imagewam_ros.nodes.diagnostics import ERROR, OK, Diagnostics


class ManagedNode(LifecycleNode):
    """Fill in setup, start and stop.

    setup and start may raise: the transition fails with that reason. stop must leave nothing
    moving. What setup builds it puts on `cleanup`, so that a half-built node comes apart too.
    """

    def __init__(self, name: str) -> None:
        """Create the node with what the user set, so that unknown parameters are seen."""
        super().__init__(name, automatically_declare_parameters_from_overrides=True)
        self.steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.diagnostics = Diagnostics(self, self.steady)
        self.is_active = False
        self.complaint = ""
        self.cleanup = contextlib.ExitStack()
        # In the default group everything else would wait while a service awaits something.
        self._reentrant = ReentrantCallbackGroup()

    def setup(self) -> None:
        """Read parameters, load, connect. Slow things belong here."""

    def start(self) -> None:
        """Begin to work."""

    def stop(self, reason: str) -> None:
        """Come to rest; nothing moves when it returns."""

    def teardown(self) -> None:
        """Undo setup, complete or not, in reverse order."""
        self.cleanup.close()

    def halt(self, reason: str) -> None:
        """Stop because the process ends."""
        self._run("deactivate", lambda: self._stop(reason))
        self._run("cleanup", self.teardown)

    def publisher(self, kind: type, topic: str, profile: QoSProfile) -> Any:
        """Return a publisher that lives until teardown."""
        publisher: Any = self.create_publisher(kind, topic, profile)
        self.cleanup.callback(self.destroy_publisher, publisher)
        return publisher

    def subscribe(self, kind: type, topic: str, callback: Callable[[Any], None], profile: QoSProfile) -> None:
        """Subscribe until teardown; bad input is reported and dropped."""
        subscription = self.create_subscription(kind, topic, self.guarded(callback), profile)
        self.cleanup.callback(self.destroy_subscription, subscription)

    def serve(self, kind: type, name: str, answer: Callable[[Any, Any], str | Awaitable[str]]) -> None:
        """Offer a service with fields success and message until teardown.

        `answer(request, response)` returns the message, or what to await for it; an ImageWamError is the answer of
        a failure.
        """

        async def call(request: Any, response: Any) -> Any:
            try:
                text = answer(request, response)
                response.message, response.success = text if isinstance(text, str) else await text, True
            except ImageWamError as error:
                response.message, response.success = str(error), False
            return response

        service = self.create_service(kind, name, call, callback_group=self._reentrant)
        self.cleanup.callback(self.destroy_service, service)

    def every(self, period_s: float, callback: Callable[[], None]) -> None:
        """Call back in steady time until teardown."""
        timer = self.create_timer(period_s, self.guarded(callback), clock=self.steady)
        self.cleanup.callback(self.destroy_timer, timer)

    def guarded(self, callback: Callable[..., Any]) -> Callable[..., None]:
        """Wrap a callback: what it raises on purpose is reported, and the node goes on."""

        def call(*args: Any) -> None:
            try:
                callback(*args)
            except ImageWamError as error:
                self.complain(str(error))

        return call

    def complain(self, reason: str) -> None:
        """Put a reason on /diagnostics, and into the log at most once a second."""
        self.complaint = reason
        self.get_logger().error(reason, throttle_duration_sec=1.0)
        self.diagnostics.set(ERROR, reason)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Build everything or nothing."""
        if self._run("configure", self.setup):
            self.diagnostics.set(OK, "inactive")
            return TransitionCallbackReturn.SUCCESS
        self._run("cleanup", self.teardown, report=False)
        return TransitionCallbackReturn.FAILURE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start, or stay inactive with the reason."""
        if self._run("activate", self.start):
            self.is_active = True
            self.diagnostics.set(OK, "active")
            return TransitionCallbackReturn.SUCCESS
        self._run("deactivate", lambda: self.stop("activation failed"), report=False)
        return TransitionCallbackReturn.FAILURE

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop; a stop that fails ends in error processing, which tears down."""
        if not self._run("deactivate", lambda: self._stop("deactivated")):
            return TransitionCallbackReturn.ERROR
        self.diagnostics.set(OK, "inactive")
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Remove what setup built."""
        return (
            TransitionCallbackReturn.SUCCESS if self._run("cleanup", self.teardown) else TransitionCallbackReturn.ERROR
        )

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop if active, then remove."""
        self.halt("shut down")
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Return to unconfigured."""
        self.is_active = False
        self._run("cleanup", self.teardown, report=False)
        return TransitionCallbackReturn.SUCCESS

    def _stop(self, reason: str) -> None:
        if self.is_active:
            self.is_active = False
            self.stop(reason)

    def _run(self, transition: str, step: Callable[[], None], *, report: bool = True) -> bool:
        """Run one step of a transition; log what it raises and say whether it went well."""
        try:
            step()
        except Exception as error:  # noqa: BLE001
            known = isinstance(error, ImageWamError)
            text = f"cannot {transition}: {error}" if known else f"cannot {transition}: {type(error).__name__}: {error}"
            if known:
                self.get_logger().warning(text)  # whoever asked for the transition decides how bad that is
            else:
                self.get_logger().error(f"{text}\n{traceback.format_exc()}")
            if report:
                self.diagnostics.set(ERROR, text)
            return False
        return True
