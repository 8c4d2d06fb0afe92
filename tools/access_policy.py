# SPDX-License-Identifier: Apache-2.0
"""The access policy for SROS2: one enclave per process, each with what its node has and no more."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable

from reference_nodes import EVERY_NODE, End, ends

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.graph import PROCESSES
from imagewam_ros.nodes import topics
from imagewam_ros.nodes.recorder_config import RecorderConfig
from imagewam_ros.supervisor import enclave

NOTE = """
  Who may do what in a cell without a namespace, for SROS2. Made by `make reference` from the code; do not edit.
  Robot drivers and other programs need enclaves of their own.
"""
OWN_SERVICES = ("describe_parameters", "get_parameter_types", "get_parameters", "list_parameters", "set_parameters")
OWN_SERVICES += ("set_parameters_atomically", "get_type_description")
ALL = "*"


def policy() -> str:
    """Return the policy as XML."""
    root = ElementTree.Element("policy", version="0.2.0")
    enclaves = ElementTree.SubElement(root, "enclaves")
    for name in dict.fromkeys(process.name for process in PROCESSES):
        _add(enclaves, name, [*_every(name), *_of(name)])
    _add(enclaves, "operator", [*_every("operator"), *_ends("subscribes to", [ALL]), *_ends("calls", [ALL])])
    ElementTree.indent(root)
    root.insert(0, ElementTree.Comment(NOTE))
    return (
        '<?xml version="1.0"?>\n<!-- SPDX-License-Identifier: Apache-2.0 -->\n'
        + ElementTree.tostring(root, "unicode")
        + "\n"
    )


def _of(name: str) -> Iterable[End]:
    """What the node of a process has, beside what every node has: as configured by default, and by other parameters."""
    robot = load_embodiment("sim_cell")
    sides = [arm.side for arm in robot.arms]
    images = [name for camera in robot.cameras for name in (camera.topic, topics.compressed(camera.topic))]
    commands = [topics.JOINT_COMMAND, *map(topics.trajectory, sides)]
    yield from ends().get(name, ())
    if name == "sim":
        yield from _ends("publishes", [topics.FRONT_IMAGE, topics.camera_info(topics.FRONT_IMAGE)])
        yield from _ends("subscribes to", commands)
    elif name.endswith("_camera"):
        yield from (end._replace(name=end.name.replace("usb_camera/", f"{name}/")) for end in _camera(name))
    elif name == "policy":
        yield from _ends("subscribes to", images)
    elif name == "recorder":
        config = RecorderConfig()
        yield from _ends("subscribes to", [topics.JOINT_STATES, *images, config.action_topic, *config.topics])
    elif name == "teleop":
        yield from _ends("calls", [topics.TAKE_OVER, *(f"{topics.TAKE_OVER}_{side}" for side in sides)])
    elif name == "doctor":
        yield from _ends("subscribes to", [topics.JOINT_STATES, *images, *map(topics.leader, sides)])
    elif name == "executor":
        yield from _ends("publishes", commands)
    elif name == "robot_state_publisher":
        yield from _ends("publishes", ["/tf", "/tf_static", "robot_description"])
        yield from _ends("subscribes to", [topics.JOINT_STATES])
    elif name == "bringup":
        managed = [process.name for process in PROCESSES if process.managed]
        asked = [f"{node}/{service}" for node in managed for service in ("change_state", "get_state")]
        yield from (*_ends("calls", asked), *_ends("subscribes to", ["/diagnostics"]))
    elif name in ("rviz", "foxglove"):
        yield from _ends("subscribes to", [ALL])


def _camera(name: str) -> Iterable[End]:
    """A USB camera's, under this name, and what a RealSense has beside it."""
    for end in ends()["usb_camera"]:
        yield end._replace(name=end.name.replace("camera/", f"{name}/")) if end.name.startswith("camera/") else end
    more = ("color/image_raw/compressed", "depth/image_rect_raw", "depth/camera_info")
    yield from _ends("publishes", [f"{name}/{leaf}" for leaf in more])


def _every(name: str) -> Iterable[End]:
    yield from _ends("publishes", [*EVERY_NODE, f"{name}/transition_event"])
    yield from _ends("subscribes to", ["/clock", "/parameter_events"])
    yield from _ends("serves", [f"{name}/{service}" for service in OWN_SERVICES])


def _ends(verb: str, names: Iterable[str]) -> list[End]:
    kind = "/srv/" if verb in ("serves", "calls") else "/msg/"
    return [End(verb, name, kind) for name in names]


def _add(enclaves: ElementTree.Element, name: str, found: list[End]) -> None:
    """Add the enclave of one process with the profile of its node."""
    inside = ElementTree.SubElement(ElementTree.SubElement(enclaves, "enclave", path=enclave(name)), "profiles")
    profile = ElementTree.SubElement(inside, "profile", ns="/", node=name)
    for tag, kind, verb, attribute in (
        ("topic", "/msg/", "publishes", "publish"),
        ("topic", "/msg/", "subscribes to", "subscribe"),
        ("service", "/srv/", "serves", "reply"),
        ("service", "/srv/", "calls", "request"),
        ("action", "/action/", "serves", "execute"),
    ):
        names = sorted({end.name for end in found if end.verb == verb and kind in end.kind})
        if names:
            group = ElementTree.SubElement(profile, f"{tag}s", {attribute: "ALLOW"})
            for one in names:
                ElementTree.SubElement(group, tag).text = one
