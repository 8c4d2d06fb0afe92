# SPDX-License-Identifier: Apache-2.0
"""ROS parameters from a config dataclass: its fields are the parameters, its checks the checks.

Nested dataclasses become dotted names. Everything is read-only but the fields that the node
names as changeable while it runs. A parameter that no field claims is refused, because a
misspelt limit that is silently ignored is worse than a node that does not start.
"""

import dataclasses
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from imagewam_ros.core.config import build
from imagewam_ros.core.errors import ConfigError, unknown_name

T = TypeVar("T")

FOREIGN = ("use_sim_time", "start_type_description_service", "qos_overrides")
"""Parameters that rclpy itself declares."""


def declare(node: Node, config_type: type[T], changeable: Collection[str] = ()) -> T:
    """Declare the fields of `config_type` on `node` and return the config that the user asked for.

    The node must have been created with automatically_declare_parameters_from_overrides, or what
    the user misspelt cannot be seen.

    Raises ConfigError for unknown names (with the nearest match), wrong types and refused values.
    """
    defaults = _flatten(config_type())
    for name in _given(node):
        if name not in defaults:
            raise ConfigError(f"{node.get_fully_qualified_name()}: {unknown_name('parameter', name, defaults)}")
    given = {name: node.get_parameter(name).value for name in _given(node)}
    config = build(config_type, _nest(given), node.get_fully_qualified_name())
    if _declared(node, config_type, next(iter(defaults))):
        return config
    for name, value in _flatten(config).items():
        if node.has_parameter(name):
            node.undeclare_parameter(name)
        descriptor = ParameterDescriptor(description=config_type.__name__, read_only=name not in changeable)
        plain = list(value) if isinstance(value, tuple) else value
        node.declare_parameter(name, plain, descriptor, ignore_override=True)
    return config


def on_change(node: Node, config: T, accept: Callable[[T], None]) -> Callable[[], None]:
    """Call `accept` with a checked new config when a changeable parameter is set; returns what ends that."""
    current = config

    def decide(changes: "list[Parameter[Any]]") -> SetParametersResult:
        nonlocal current
        ours = {change.name: change.value for change in changes if not _foreign(change.name)}
        try:
            current = build(type(config), _nest({**_flatten(current), **ours}), node.get_fully_qualified_name())
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        accept(current)
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(decide)
    return lambda: node.remove_on_set_parameters_callback(decide)


def _declared(node: Node, config_type: type, name: str) -> bool:
    """Tell whether an earlier configure declared the fields already."""
    return node.has_parameter(name) and node.describe_parameter(name).description == config_type.__name__


def _given(node: Node) -> list[str]:
    return [name for name in node.get_parameters_by_prefix("") if not _foreign(name)]


def _foreign(name: str) -> bool:
    return name.split(".")[0] in FOREIGN


def _flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted names to values, nested dataclasses opened."""
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            flat.update(_flatten(value, f"{prefix}{field.name}."))
        else:
            flat[prefix + field.name] = value
    return flat


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *folders, leaf = name.split(".")
        place = nested
        for folder in folders:
            place = place.setdefault(folder, {})
        place[leaf] = list(value) if isinstance(value, typing.Sequence) and not isinstance(value, str) else value
    return nested
