# SPDX-License-Identifier: Apache-2.0
"""Subscribe to serialised messages as their publishers offer them, whatever type they have."""

import importlib
from collections.abc import Callable, Collection
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

from imagewam_ros.core.errors import EpisodeError
from imagewam_ros.data.bag import Topic
from imagewam_ros.data.bag_types import definition

DEPTH_LARGE, DEPTH_SMALL = 30, 1000
"""Queue per subscription: a second of images, some seconds of everything else."""

LARGE = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/PointCloud2")
AT_ONCE = 50
"""Messages of one topic that are taken in a row before the others get their turn."""

UNKNOWN_SEQUENCE = 2**64 - 1
"""What the middleware says where it does not count."""

Arrived = Callable[[str, bytes, int, int], None]
"""Called with topic, data, time of publication in ns, and the publisher's count of its messages or 0."""


class RawTopics:
    """Raw subscriptions to some topics, made as soon as somebody publishes on them."""

    def __init__(self, node: Node, names: Collection[str], arrived: Arrived) -> None:
        """Watch topics by their full names."""
        self._node, self._arrived = node, arrived
        self._names = tuple(names)
        self._subscriptions: dict[str, Any] = {}
        self.topics: dict[str, Topic] = {}
        self.latched: dict[str, tuple[bytes, int]] = {}
        """Newest message (data, time of publication) of topics that keep theirs for late subscribers."""

    def look(self) -> list[Topic]:
        """Subscribe to what has appeared and return it. Raises EpisodeError for a type that is not installed."""
        appeared = []
        for name in self._names:
            if name not in self.topics and (endpoints := self._node.get_publishers_info_by_topic(name)):
                appeared.append(self._subscribe(name, endpoints))
        return appeared

    def silent(self, names: Collection[str]) -> list[str]:
        """Return which of `names` nobody publishes now."""
        return [name for name in names if not self._node.count_publishers(name)]

    def close(self) -> None:
        """Unsubscribe from everything."""
        for subscription in self._subscriptions.values():
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()
        self.topics.clear()
        self.latched.clear()

    def _subscribe(self, name: str, endpoints: list[Any]) -> Topic:
        msgtype = endpoints[0].topic_type
        definition(msgtype)
        profiles = [endpoint.qos_profile for endpoint in endpoints]
        kind, profile = message_class(msgtype), adapted(profiles, msgtype)
        counted, latched = len(endpoints) == 1, profile.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL

        def take(data: bytes, information: Any) -> None:
            sequence = information.get("publication_sequence_number") if counted else 0
            known = sequence if sequence and sequence != UNKNOWN_SEQUENCE else 0
            if latched:
                self.latched[name] = (data, information["source_timestamp"])
            self._arrived(name, data, information["source_timestamp"], known)

        def call(data: bytes, information: Any) -> None:
            take(data, information)
            # The executor gives one message per round; a backlog is faster taken at once.
            handle = self._subscriptions[name].handle
            with handle:
                for _ in range(AT_ONCE):
                    if (more := handle.take_message(kind, True)) is None:
                        return
                    take(*more)

        self._subscriptions[name] = self._node.create_subscription(kind, name, call, profile, raw=True)
        self.topics[name] = Topic(name, msgtype, tuple(offered(profile) for profile in profiles))
        return self.topics[name]


def message_class(msgtype: str) -> type:
    """Return the class of "package/msg/Name". Raises EpisodeError when the package is not installed."""
    package, _, name = msgtype.split("/")
    try:
        found: type = getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError):
        raise EpisodeError(f"type {msgtype} is not installed here; install {package} or leave its topics out") from None
    return found


def adapted(profiles: Collection[QoSProfile], msgtype: str) -> QoSProfile:
    """Return the strictest profile that every publisher serves: reliable or latched only where all are."""
    reliable = all(profile.reliability == QoSReliabilityPolicy.RELIABLE for profile in profiles)
    latched = all(profile.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL for profile in profiles)
    return QoSProfile(
        depth=DEPTH_LARGE if msgtype in LARGE else DEPTH_SMALL,
        reliability=QoSReliabilityPolicy.RELIABLE if reliable else QoSReliabilityPolicy.BEST_EFFORT,
        durability=QoSDurabilityPolicy.TRANSIENT_LOCAL if latched else QoSDurabilityPolicy.VOLATILE,
    )


def offered(profile: QoSProfile) -> Qos:
    """Return a publisher's profile as bags keep it, so that a replay offers the same."""
    return Qos(
        QosHistory(int(profile.history)),
        profile.depth,
        QosReliability(int(profile.reliability)),
        QosDurability(int(profile.durability)),
        _time(profile.deadline),
        _time(profile.lifespan),
        QosLiveliness(int(profile.liveliness)),
        _time(profile.liveliness_lease_duration),
        profile.avoid_ros_namespace_conventions,
    )


def _time(duration: Any) -> QosTime:
    return QosTime(*divmod(duration.nanoseconds, 10**9))
