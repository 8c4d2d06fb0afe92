# SPDX-License-Identifier: Apache-2.0
"""The reference page of the nodes: each is built and configured here, and asked what it has."""

import dataclasses
import inspect
import os
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import rclpy
from make_reference import MADE, quoted, row, table
from rclpy.action import get_action_server_names_and_types_by_node
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy

from imagewam_ros.core.errors import GraphError
from imagewam_ros.domain import private_domain
from imagewam_ros.nodes.bringup_node import BringupConfig
from imagewam_ros.nodes.doctor_node import DoctorConfig, DoctorNode
from imagewam_ros.nodes.executor_node import ExecutorNode, ExecutorNodeConfig
from imagewam_ros.nodes.lifecycle import ManagedNode
from imagewam_ros.nodes.policy_node import PolicyNode, PolicyNodeConfig
from imagewam_ros.nodes.realsense_node import RealSenseNodeConfig
from imagewam_ros.nodes.recorder_config import RecorderConfig
from imagewam_ros.nodes.recorder_node import RecorderNode
from imagewam_ros.nodes.sim_node import SimConfig, SimNode
from imagewam_ros.nodes.teleop_node import TeleopConfig, TeleopNode
from imagewam_ros.nodes.usb_camera_node import UsbCameraNode, UsbCameraNodeConfig

ALL = """Every node publishes /diagnostics and takes `use_sim_time`; all but bringup have the services of a lifecycle
node. Topics are those of the default parameters. The recorder subscribes to what it records when an episode starts,
realsense publishes what usb_camera does and, with `enable_depth`, `camera/depth/image_rect_raw`."""
EVERY_NODE = ("/rosout", "/parameter_events", "/diagnostics")
EVERY_LIFECYCLE = {
    *("change_state", "get_state", "get_available_states", "get_available_transitions", "get_transition_graph"),
    *("transition_event", "describe_parameters", "get_parameter_types", "get_parameters", "list_parameters"),
    *("set_parameters", "set_parameters_atomically", "get_type_description"),
}
"""Last words of names that every node has."""


class Blank:
    """A video device that gives VGA and no frame."""

    def isOpened(self) -> bool:  # noqa: N802
        """Say that it is there."""
        return True

    def read(self) -> tuple[bool, Any]:
        """Give nothing."""
        return False, None

    def get(self, propId: int) -> float:
        """Answer OpenCV's questions about width, height and rate."""
        return {3: 640.0, 4: 480.0, 5: 30.0}.get(propId, 0.0)

    def release(self) -> None:
        """Do nothing."""


NODES: dict[str, tuple[type, Callable[[], ManagedNode] | None]] = {
    "sim": (SimConfig, SimNode),
    "policy": (PolicyNodeConfig, PolicyNode),
    "executor": (ExecutorNodeConfig, ExecutorNode),
    "recorder": (RecorderConfig, RecorderNode),
    "teleop": (TeleopConfig, TeleopNode),
    "doctor": (DoctorConfig, DoctorNode),
    "usb_camera": (UsbCameraNodeConfig, lambda: UsbCameraNode(lambda _: Blank())),
    "realsense": (RealSenseNodeConfig, None),
    "bringup": (BringupConfig, None),
}
"""Config and maker of each node; without a maker only the parameters are shown."""


class End(NamedTuple):
    """One thing that a node publishes, subscribes to, serves or calls."""

    verb: str
    name: str
    kind: str
    qos: str = ""


def page() -> str:
    """Topics, services, actions and parameters of every node, with the defaults of every parameter."""
    lines = ["# Nodes", "", MADE, ALL, "", "```mermaid", "flowchart LR", *_flow(), "```", ""]
    for name, (config, _) in NODES.items():
        shown = sorted({row(e.verb, f"`{e.name}`", e.kind, e.qos) for e in ends().get(name, ()) if _is_ours(e.name)})
        head = table("direction", "name", "type", "quality of service")
        lines += [f"## {name}", "", *((*head, *shown, "") if shown else ()), *_parameters(config), ""]
    return "\n".join(lines)


def _flow() -> Iterator[str]:
    """Lines of a Mermaid chart: who publishes what to whom, alike topics as one."""
    for one, mine in ends().items():
        for other, theirs in ends().items():
            sent = {end.name for end in mine if end.verb == "publishes" and _is_ours(end.name)}
            heard = {end.name for end in theirs if end.verb == "subscribes to"}
            alike = sorted({re.sub(r"^(left|right|head)(_wrist)?_", "*_", name) for name in sent & heard})
            if alike and one != other:
                yield f'  {one} -->|"{"<br/>".join(alike)}"| {other}'


@cache
def ends() -> dict[str, tuple[End, ...]]:
    """Configure every node and ask for its ends; names are relative, but for those of the whole graph."""
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "OFF"
    with private_domain() as domain:
        rclpy.init(domain_id=domain, args=[])
        try:
            return {name: tuple(_ends(make())) for name, (_, make) in NODES.items() if make}
        finally:
            rclpy.try_shutdown()


def _ends(node: ManagedNode) -> Iterator[End]:
    node.trigger_configure()
    if node.diagnostics.message != "inactive":
        raise GraphError(f"{node.get_name()} cannot be configured here: {node.diagnostics.message}")
    for verb, topics in (("publishes", node.publishers), ("subscribes to", node.subscriptions)):
        for end in topics:
            yield End(verb, _relative(end.topic_name), _kind(end.msg_type), _qos(end.qos_profile))
    for verb, services in (("serves", node.services), ("calls", node.clients)):
        for end in services:
            yield End(verb, _relative(end.srv_name), _kind(end.srv_type))
    for name, kinds in get_action_server_names_and_types_by_node(node, node.get_name(), node.get_namespace()):
        yield End("serves", _relative(name), kinds[0])
    node.halt("done")
    node.destroy_node()


def _is_ours(name: str) -> bool:
    return name not in EVERY_NODE and name.rpartition("/")[2] not in EVERY_LIFECYCLE


def _relative(name: str) -> str:
    return name if name in (*EVERY_NODE, "/clock") else name.lstrip("/")


def _kind(kind: type) -> str:
    package, folder = kind.__module__.split(".")[:2]
    return f"{package}/{folder}/{kind.__name__}"


def _qos(profile: QoSProfile) -> str:
    reliable = "reliable" if profile.reliability == QoSReliabilityPolicy.RELIABLE else "best effort"
    latched = ", transient local" if profile.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL else ""
    return f"{reliable}, {profile.depth}{latched}"


def _parameters(config: type, prefix: str = "") -> Iterator[str]:
    if not prefix:
        yield from (inspect.getdoc(config) or "", "", *table("parameter", "default"))
    for field in dataclasses.fields(config):
        value = getattr(config(), field.name)
        if dataclasses.is_dataclass(value):
            yield from _parameters(type(value), f"{prefix}{field.name}.")
        else:
            yield row(f"`{prefix}{field.name}`", quoted(value))
