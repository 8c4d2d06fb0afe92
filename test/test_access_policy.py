# SPDX-License-Identifier: Apache-2.0
"""Whom SROS2 lets do what: each process has an enclave, and only the executor commands the arms."""

import xml.etree.ElementTree as ElementTree

import pytest

from imagewam_ros.core.paths import share_dir
from imagewam_ros.graph import PROCESSES
from imagewam_ros.supervisor import enclave

ROOT = ElementTree.parse(share_dir() / "config" / "security" / "cell.policy.xml").getroot()
ENCLAVES = {element.get("path"): element for element in ROOT.iter("enclave")}


def allowed(path: str, group: str, verb: str) -> set[str]:
    found = [g for g in ENCLAVES[path].iter(f"{group}s") if g.get(verb) == "ALLOW"]
    return {one.text or "" for g in found for one in g}


def test_every_process_has_an_enclave_and_the_operator_too() -> None:
    assert set(ENCLAVES) == {enclave(process.name) for process in PROCESSES} | {enclave("operator")}
    for path, element in ENCLAVES.items():
        assert [profile.get("node") for profile in element.iter("profile")] == [str(path).rpartition("/")[2]]


def test_only_the_executor_commands_the_arms() -> None:
    commands = {"_controller/commands", "_controller/joint_trajectory", "joint_command"}
    may = {path for path in ENCLAVES for t in allowed(str(path), "topic", "publish") if t.endswith(tuple(commands))}
    assert may == {enclave("executor")}


def test_only_policy_and_teleop_send_chunks() -> None:
    may = {path for path in ENCLAVES if "policy/action_chunk" in allowed(str(path), "topic", "publish")}
    assert may == {enclave("policy"), enclave("teleop")}


@pytest.mark.parametrize("viewer", ["rviz", "foxglove", "operator"])
def test_who_looks_publishes_nothing_of_the_cell(viewer: str) -> None:
    every = {"/rosout", "/parameter_events", "/diagnostics", f"{viewer}/transition_event"}
    assert allowed(enclave(viewer), "topic", "publish") <= every
    assert "*" in allowed(enclave(viewer), "topic", "subscribe")
    assert allowed(enclave(viewer), "service", "request") == ({"*"} if viewer == "operator" else set())


def test_bringup_may_drive_every_lifecycle_and_nothing_else() -> None:
    managed = {process.name for process in PROCESSES if process.managed}
    asked = allowed(enclave("bringup"), "service", "request")
    assert asked == {f"{name}/{service}" for name in managed for service in ("change_state", "get_state")}
