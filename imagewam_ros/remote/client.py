# SPDX-License-Identifier: Apache-2.0
"""A policy on another machine, asked as if it were here: observation out, action chunk in.

Speaks openpi's websocket protocol, so a pi0 server runs on the same seeds as a checkpoint of ours. Every wait has
a limit and every answer is checked; there is no retry, because a late chunk is no chunk.
"""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import numpy as np

from imagewam_ros.core.errors import ConfigError, EmbodimentMismatch, RemoteError, unknown_name
from imagewam_ros.core.schema import ActionChunk, Observation
from imagewam_ros.remote.layout import find_layout
from imagewam_ros.remote.wire import pack, sockets, unpack

SCHEMES = ("ws", "wss")


@dataclass(frozen=True)
class RemoteConfig:
    """Where a server is and what it expects.

    Its rows are period_s apart, the first one first_row_offset periods after the observation; only the first
    `rows` are used, all where 0. timeout_s holds for connecting and for each answer, max_mb for its size.
    """

    uri: str
    layout: str = "aloha"
    period_s: float = 0.05
    first_row_offset: float = 1.0
    rows: int = 0
    timeout_s: float = 30.0
    max_mb: float = 64.0

    def __post_init__(self) -> None:
        find_layout(self.layout)
        if min(self.period_s, self.timeout_s, self.max_mb) <= 0 or min(self.rows, self.first_row_offset) < 0:
            raise ConfigError(f"period_s, timeout_s and max_mb must be positive, rows not negative: found {self}")


def is_remote(policy: str) -> bool:
    """Whether the name of a policy is the address of a server."""
    return urlsplit(policy).scheme in SCHEMES


def parse_address(address: str) -> RemoteConfig:
    """Read ws://host:port?layout=aloha&period_s=0.02. Raises ConfigError for unknown or unreadable settings."""
    parts = urlsplit(address)
    kinds: dict[str, Any] = {field.name: type(field.default) for field in fields(RemoteConfig) if field.name != "uri"}
    settings: dict[str, Any] = {}
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name not in kinds:
            raise ConfigError(unknown_name("setting", name, kinds))
        try:
            settings[name] = kinds[name](text)
        except ValueError:
            raise ConfigError(f"{name} must be a {kinds[name].__name__}, found {text!r}") from None
    return RemoteConfig(urlunsplit((parts.scheme, parts.netloc, parts.path, "", "")), **settings)


class RemotePolicy:
    """One connection. Asked like `policy.Policy`; seeds stay here, because the protocol has none."""

    def __init__(self, config: RemoteConfig, joint_names: tuple[str, ...]) -> None:
        """Connect and read the server's metadata. Raises RemoteError naming address and reason."""
        self.config, self._joint_names = config, joint_names
        self._layout = find_layout(config.layout)
        self.camera_names = tuple(camera for camera, _ in self._layout.images)
        self._sequence, self._exit = 0, ExitStack()
        library = sockets()
        try:
            self._socket = self._exit.enter_context(
                library.sync.client.connect(
                    config.uri,
                    open_timeout=config.timeout_s,
                    compression=None,
                    max_size=round(config.max_mb * 1e6),
                    ping_interval=None,  # openpi's server answers none while it infers
                )
            )
        except (OSError, TimeoutError, library.exceptions.WebSocketException) as error:
            raise RemoteError(
                f"no policy server at {config.uri}: {error or type(error).__name__}; is it running?"
            ) from error
        self.metadata = self._receive("its metadata")

    def set_instruction(self, text: str) -> None:
        """Do nothing: every observation carries the instruction."""

    def infer(self, observation: Observation, seed: int = 0, ready_ns: int = 0) -> ActionChunk:
        """Return the chunk that the server gives for `observation`.

        Raises RemoteError for silence, a closed or failing server or an answer that is no chunk, and
        EmbodimentMismatch for a chunk of another number of joints.
        """
        start = time.perf_counter()
        try:
            self._socket.send(pack(self._layout.write(observation)))
        except (OSError, sockets().exceptions.ConnectionClosed) as error:
            raise self._closed(error) from error
        answer = self._receive("an answer")
        rows = self._rows(answer)
        self._sequence += 1
        return ActionChunk(
            stamp_ns=observation.stamp_ns,
            period_ns=round(self.config.period_s * 1e9),
            joint_names=self._joint_names,
            positions=rows,
            first_row_offset_periods=self.config.first_row_offset,
            sequence=self._sequence,
            ready_ns=ready_ns,
            instruction_id=observation.instruction_id,
            seed=seed,
            inference_s=time.perf_counter() - start,
        )

    def close(self) -> None:
        """Say goodbye."""
        self._exit.close()

    def _rows(self, answer: Mapping[str, Any]) -> "np.ndarray[Any, np.dtype[np.float64]]":
        if "actions" not in answer:
            raise RemoteError(f"{self.config.uri} answered without 'actions', with {sorted(map(str, answer))}")
        try:
            rows = np.asarray(answer["actions"], dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise RemoteError(f"{self.config.uri} answered with actions that are no numbers: {error}") from error
        if rows.ndim != 2 or not len(rows) or not np.isfinite(rows).all():
            raise RemoteError(f"{self.config.uri} sent actions {list(rows.shape)}, expected finite [rows, joints]")
        if rows.shape[1] != len(self._joint_names):
            raise EmbodimentMismatch(
                f"{self.config.uri} commands {rows.shape[1]} joints, the robot has {len(self._joint_names)}; "
                "start the server with a policy for this robot, or choose another --robot"
            )
        return rows[: self.config.rows or None]

    def _receive(self, what: str) -> dict[str, Any]:
        try:
            data = self._socket.recv(timeout=self.config.timeout_s)
        except TimeoutError as error:
            self.close()
            raise RemoteError(
                f"{self.config.uri} sent {what} not within {self.config.timeout_s:g} s; a larger timeout_s waits longer"
            ) from error
        except sockets().exceptions.ConnectionClosed as error:
            raise self._closed(error) from error
        if isinstance(data, str):
            raise RemoteError(f"{self.config.uri} failed: {(data.strip() or 'no reason given').splitlines()[-1]}")
        return unpack(data)

    def _closed(self, error: Exception) -> RemoteError:
        return RemoteError(
            f"{self.config.uri} closed the connection: {error}; its log says why (a message above max_mb "
            f"{self.config.max_mb:g} closes it from here)"
        )
