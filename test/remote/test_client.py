# SPDX-License-Identifier: Apache-2.0
"""A remote policy against a real server on loopback: what arrives, and every way in which it goes wrong."""

import socket

import numpy as np
import pytest
from policy_server import PolicyServerFake, stand_still

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError, EmbodimentMismatch, RemoteError
from imagewam_ros.core.schema import Observation
from imagewam_ros.remote.client import RemotePolicy, is_remote, parse_address

ROBOT = load_embodiment("sim_cell")


def observation(height: int = 128, width: int = 128) -> Observation:
    images = {name: np.full((height, width, 3), 200, np.uint8) for name in ROBOT.camera_names}
    return Observation(10**9, images, np.arange(14) / 10, "lift the tray")


def connect(server: PolicyServerFake, settings: str = "") -> RemotePolicy:
    return RemotePolicy(parse_address(server.address + settings), ROBOT.joint_names)


def test_a_chunk_comes_back_on_the_observations_time() -> None:
    with PolicyServerFake(stand_still(), {"reset_pose": [0.0]}) as server:
        policy = connect(server, "?period_s=0.02&first_row_offset=0&rows=4")
        chunk = policy.infer(observation(), seed=7, ready_ns=5)
        policy.close()
    assert policy.metadata == {"reset_pose": [0.0]}
    assert chunk.positions.shape == (4, 14) and np.allclose(chunk.positions[0], np.arange(14) / 10)
    assert (chunk.stamp_ns, chunk.period_ns, chunk.first_row_offset_periods) == (10**9, 20_000_000, 0.0)
    assert chunk.joint_names == ROBOT.joint_names and (chunk.seed, chunk.ready_ns, chunk.sequence) == (7, 5, 1)


def test_the_server_sees_what_openpi_shows_its_aloha_policies() -> None:
    with PolicyServerFake(stand_still()) as server:
        connect(server).infer(observation(height=120, width=160))
    (seen,) = server.seen
    assert set(seen) == {"images", "state", "prompt"} and seen["prompt"] == "lift the tray"
    assert set(seen["images"]) == {"cam_high", "cam_left_wrist", "cam_right_wrist"}
    picture = seen["images"]["cam_high"]
    assert picture.shape == (3, 224, 224) and picture.dtype == np.uint8
    assert (picture[:, 28:196] == 200).all() and not picture[:, :28].any() and not picture[:, 196:].any()


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        ({"action": 1}, RemoteError, "answered without 'actions', with"),
        ({"actions": np.zeros(14)}, RemoteError, r"sent actions \[14\], expected finite \[rows, joints\]"),
        ({"actions": np.zeros((0, 14))}, RemoteError, r"sent actions \[0, 14\]"),
        ({"actions": np.full((4, 14), np.nan)}, RemoteError, "expected finite"),
        ({"actions": "left"}, RemoteError, "actions that are no numbers"),
        ({"actions": np.zeros((4, 7))}, EmbodimentMismatch, "commands 7 joints, the robot has 14"),
        ("Traceback\nKeyError: 'state'\n", RemoteError, "failed: KeyError: 'state'"),
        (b"\xc1", RemoteError, "bytes are no msgpack"),
        (None, RemoteError, "closed the connection"),
        ({"actions": np.zeros((40_000, 14))}, RemoteError, "above max_mb 1 closes it from here"),
    ],
)
def test_answers_that_are_no_chunk_are_named(answer, kind, reason) -> None:
    with PolicyServerFake(lambda _: answer) as server, pytest.raises(kind, match=reason):
        connect(server, "?max_mb=1").infer(observation())


def test_silence_has_a_limit() -> None:
    with PolicyServerFake(stand_still(), wait_s=1.5) as server:
        policy = connect(server, "?timeout_s=0.6")
        with pytest.raises(RemoteError, match="sent an answer not within 0.6 s; a larger timeout_s waits longer"):
            policy.infer(observation())
        with pytest.raises(RemoteError, match="closed the connection"):
            policy.infer(observation())


def test_an_absent_server_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"ws://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(RemoteError, match=f"no policy server at {address}: .* is it running"):
            RemotePolicy(parse_address(address), ROBOT.joint_names)


def test_what_does_not_speak_websocket_is_no_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"ws://127.0.0.1:{listener.getsockname()[1]}?timeout_s=0.2"
        with pytest.raises(RemoteError, match="no policy server at"):
            RemotePolicy(parse_address(address), ROBOT.joint_names)


def test_a_server_that_has_gone_is_named() -> None:
    with PolicyServerFake(stand_still()) as server:
        policy = connect(server)
    with pytest.raises(RemoteError, match="closed the connection"):
        policy.infer(observation())


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("period=0.02", "unknown setting 'period'; did you mean 'period_s'"),
        ("period_s=fast", "period_s must be a float, found 'fast'"),
        ("period_s=0", "must be positive"),
        ("rows=-1", "rows not negative"),
        ("layout=alloha", "unknown layout 'alloha'; did you mean 'aloha'"),
    ],
)
def test_settings_are_checked(query, reason) -> None:
    with pytest.raises(ConfigError, match=reason):
        parse_address(f"ws://here:8000?{query}")


def test_addresses_are_told_from_checkpoints() -> None:
    assert is_remote("ws://10.0.0.2:8000") and is_remote("wss://host/policy?rows=8")
    assert not is_remote("tiny") and not is_remote("runs/tiny/checkpoint")
    assert parse_address("wss://host:1/policy?rows=8").uri == "wss://host:1/policy"


def test_a_camera_that_the_layout_needs_is_named() -> None:
    with PolicyServerFake(stand_still()) as server:
        policy = connect(server, "?layout=libero")
        with pytest.raises(ConfigError, match="the layout needs unknown camera 'wrist'"):
            policy.infer(observation())
