# SPDX-License-Identifier: Apache-2.0
"""`SimpleFilter` and `Subscriber` of message_filters, from ROS where it is installed.

Elsewhere two stand-ins take their place; the tests hold them to the documented behaviour.
Synchronising is not here: that rule is `core.sync`, for topics and bags alike.
Source: docs.ros.org, message_filters, Python API.
"""

from collections.abc import Callable
from typing import Any

from rclpy.node import Node


class StandInSimpleFilter:
    """Base of filters: callbacks are called with the message, then with their own arguments."""

    def __init__(self) -> None:
        self.callbacks: dict[int, tuple[Callable[..., None], tuple[Any, ...]]] = {}
        self._next = 0

    def registerCallback(self, callback: Callable[..., None], *args: object) -> int:  # noqa: N802
        """Call `callback(*message, *args)` for every output; returns a handle."""
        handle, self._next = self._next, self._next + 1
        self.callbacks[handle] = (callback, args)
        return handle

    def unregisterCallback(self, handle: int) -> None:  # noqa: N802
        """Stop calling what `handle` stands for."""
        del self.callbacks[handle]

    def signalMessage(self, *message: object) -> None:  # noqa: N802
        """Pass an output on to every callback, in the order of registration."""
        for callback, args in list(self.callbacks.values()):
            callback(*message, *args)


class StandInSubscriber(StandInSimpleFilter):
    """A subscription as the source of a chain of filters."""

    def __init__(self, node: Node, msg_type: type, topic: str, qos_profile: Any = 10, **kwargs: Any) -> None:
        """Subscribe; further arguments go to `Node.create_subscription`."""
        super().__init__()
        self.node, self.topic = node, topic
        self.sub = node.create_subscription(msg_type, topic, self.signalMessage, qos_profile, **kwargs)

    def getTopic(self) -> str:  # noqa: N802
        """Return the topic as it was asked for."""
        return self.topic


try:
    from message_filters import SimpleFilter, Subscriber
except ModuleNotFoundError:
    SimpleFilter, Subscriber = StandInSimpleFilter, StandInSubscriber

__all__ = ["SimpleFilter", "Subscriber"]
