# SPDX-License-Identifier: Apache-2.0
"""Our policy served, asked by our client and by a raw one."""

import socket
import threading
import urllib.request
from dataclasses import replace

import numpy as np
import pytest
from websockets.sync.client import connect as raw_connect

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import RemoteError, StaleObservation
from imagewam_ros.core.schema import ActionChunk, Observation
from imagewam_ros.remote.client import RemotePolicy, parse_address
from imagewam_ros.remote.layout import find_layout
from imagewam_ros.remote.server import PolicyServer
from imagewam_ros.remote.wire import pack

ROBOT = load_embodiment("sim_cell")


class Leaning:
    """Wants every joint a little further; refuses joints beyond 9."""

    def __init__(self) -> None:
        self.busy, self.overlapped = threading.Lock(), False

    def infer(self, observation: Observation, seed: int = 0, ready_ns: int = 0) -> ActionChunk:
        self.seen = observation.images
        self.overlapped |= not self.busy.acquire(blocking=False)
        if observation.positions.max() > 9:
            self.busy.release()
            raise StaleObservation("joints are far away")
        positions = observation.positions + 0.01 * np.arange(1, 5)[:, None]
        self.busy.release()
        return ActionChunk(0, 50_000_000, ROBOT.joint_names, positions)


@pytest.fixture
def server():
    policy = Leaning()
    with PolicyServer(policy, 14, find_layout("aloha"), {"rows": 4}, port=0) as running:
        running.policy = policy
        yield running


def observation(first: float = 0.0) -> Observation:
    images = {name: np.zeros((64, 64, 3), np.uint8) for name in ROBOT.camera_names}
    return Observation(5, images, np.full(14, first), "lift")


def test_client_and_server_understand_each_other(server) -> None:
    policy = RemotePolicy(parse_address(server.address), ROBOT.joint_names)
    assert policy.metadata == {"rows": 4}
    chunk = policy.infer(observation(0.5))
    assert np.allclose(chunk.positions[:, 3], [0.51, 0.52, 0.53, 0.54])


def test_the_policy_sees_pictures_without_bars() -> None:
    policy, sizes = Leaning(), {"head": (480, 640)}
    with PolicyServer(policy, 14, find_layout("aloha"), {}, port=0, sizes=sizes) as running:
        images = {name: np.full((480, 640, 3), 200, np.uint8) for name in ROBOT.camera_names}
        RemotePolicy(parse_address(running.address), ROBOT.joint_names).infer(replace(observation(), images=images))
    assert policy.seen["head"].shape == (168, 224, 3) and (policy.seen["head"] == 200).all()
    assert policy.seen["left_wrist"].shape == (224, 224, 3), "nothing is known of this camera"


def test_several_clients_are_served_one_after_the_other(server) -> None:
    def ask() -> None:
        policy = RemotePolicy(parse_address(server.address), ROBOT.joint_names)
        for _ in range(5):
            policy.infer(observation())

    clients = [threading.Thread(target=ask) for _ in range(3)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(20)
    assert not server.policy.overlapped and not any(client.is_alive() for client in clients)


def test_a_refusal_reaches_the_client(server) -> None:
    policy = RemotePolicy(parse_address(server.address), ROBOT.joint_names)
    with pytest.raises(RemoteError, match="failed: StaleObservation: joints are far away"):
        policy.infer(observation(10.0))
    RemotePolicy(parse_address(server.address), ROBOT.joint_names).infer(observation())


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"prompt": "lift", "state": np.zeros(14)}, "the observation has no images/cam_high; found"),
        ({"prompt": "lift", "state": np.zeros(7)}, r"state has shape \[7\], expected \[14\]"),
        ({"prompt": "lift", "state": [[0.0], [0.0, 1.0]]}, "state is no vector of numbers: "),
        ({"prompt": "lift", "state": ["left"] * 14}, "state is no vector of numbers: "),
        ({"state": np.zeros(14)}, "'prompt' must be the instruction in words"),
    ],
)
def test_observations_that_are_none_are_named(server, message, reason) -> None:
    images = {name: np.zeros((3, 64, 64), np.uint8) for name in ("cam_high", "cam_left_wrist", "cam_right_wrist")}
    if "no images" not in reason:
        message = {**message, "images": images}
    with raw_connect(server.address) as raw:
        raw.recv()
        raw.send(pack(message))
        text = raw.recv()
    with pytest.raises(RemoteError, match=reason):
        raise RemoteError(text)


def test_text_and_odd_pictures_are_refused(server) -> None:
    with raw_connect(server.address) as raw:
        raw.recv()
        raw.send("hello")
        assert "expected a binary frame, found text" in raw.recv()
    images = {name: np.zeros((3, 4), np.uint8) for name in ("cam_high", "cam_left_wrist", "cam_right_wrist")}
    with raw_connect(server.address) as raw:
        raw.recv()
        raw.send(pack({"prompt": "lift", "state": np.zeros(14), "images": images}))
        assert "images/cam_high is uint8 [3, 4], expected uint8 [H, W, 3]" in raw.recv()
    for picture, reason in (
        ([[0], [0, 1]], "images/cam_high is no array: "),
        (np.zeros((0, 4, 3), np.uint8), "images/cam_high is uint8 [0, 4, 3], expected uint8 [H, W, 3]"),
    ):
        with raw_connect(server.address) as raw:
            raw.recv()
            raw.send(pack({"prompt": "lift", "state": np.zeros(14), "images": {**images, "cam_high": picture}}))
            assert reason in raw.recv()


def test_the_end_of_the_server_ends_its_connections() -> None:
    with PolicyServer(Leaning(), 14, find_layout("aloha"), {}, port=0) as running:
        policy = RemotePolicy(parse_address(running.address), ROBOT.joint_names)
        policy.infer(observation())
    with pytest.raises(RemoteError, match="closed the connection: .*1001"):
        policy.infer(observation())


def test_health_is_answered_without_a_websocket(server) -> None:
    with urllib.request.urlopen(server.address.replace("ws", "http") + "/healthz", timeout=5) as answer:
        assert answer.read() == b"OK\n"


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RemoteError, match=f"cannot serve on 127.0.0.1:{port}: Address already in use"):
            PolicyServer(Leaning(), 14, find_layout("aloha"), {}, port=port)
