# SPDX-License-Identifier: Apache-2.0
"""`imagewam serve`: a checkpoint for clients of openpi's websocket protocol, on this machine or in a network."""

import argparse
from typing import TYPE_CHECKING

from imagewam_ros.core.embodiment import Embodiment, load_embodiment
from imagewam_ros.core.paths import find_checkpoint
from imagewam_ros.remote.layout import LAYOUTS, Layout, find_layout
from imagewam_ros.remote.server import PolicyServer

if TYPE_CHECKING:
    from imagewam_ros.policy import Policy


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `imagewam serve`."""
    parser.add_argument("--policy", default="tiny", help="checkpoint: a name in models/ or a directory")
    parser.add_argument("--robot", default="sim_cell", help="robot name or path to its YAML")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--layout", default="aloha", help=f"of the clients' observations: {', '.join(LAYOUTS)}")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 lets the network in")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")


def run(arguments: argparse.Namespace) -> int:
    """Serve until interrupted."""
    from imagewam_ros.model.device import choose_device
    from imagewam_ros.policy import Policy

    robot, layout = load_embodiment(arguments.robot), find_layout(arguments.layout)
    policy = Policy.load(find_checkpoint(arguments.policy), robot, choose_device(arguments.device))
    with open_server(policy, robot, layout, arguments.host, arguments.port) as server:
        print(f"serving {arguments.policy} ({policy.contract.hash}) on {server.address}", flush=True)
        server.wait()
    return 0


def open_server(policy: "Policy", robot: Embodiment, layout: Layout, host: str, port: int) -> PolicyServer:
    """Bind a server that expects all joints of the robot, whichever the policy commands. See `PolicyServer`."""
    contract = policy.contract
    metadata = {
        "contract_hash": contract.hash,
        "joint_names": list(contract.joint_names),
        "period_s": contract.period_ns / 1e9,
        "first_row_offset": contract.first_row_offset_periods,
        "rows": contract.horizon,
    }
    sizes = {camera.name: (camera.height, camera.width) for camera in robot.cameras}
    return PolicyServer(policy, len(robot.joints), layout, metadata, host, port, sizes=sizes)
