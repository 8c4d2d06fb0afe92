# SPDX-License-Identifier: Apache-2.0
"""Our policy for openpi's clients: one connection is one client, inferences are one after the other.

Binds to this machine unless told otherwise; whoever can connect can make the policy compute, nothing else.
"""

import http
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol

from imagewam_ros.core.errors import ImageWamError, RemoteError
from imagewam_ros.core.schema import ActionChunk, Observation
from imagewam_ros.remote.layout import Layout, Size
from imagewam_ros.remote.wire import pack, sockets, unpack

GOING_AWAY, INTERNAL_ERROR = 1001, 1011
"""Websocket close codes of a server that ends and of one that cannot go on (RFC 6455, 7.4.1)."""
HEALTH = "/healthz"


class ChunkSource(Protocol):
    """What is served."""

    def infer(self, observation: Observation, seed: int = 0, ready_ns: int = 0) -> ActionChunk:
        """Return the chunk that follows an observation."""
        ...


class PolicyServer:
    """Serve `policy` of `joints` joints on host:port; port 0 takes a free one, which `address` tells.

    sizes gives height and width of the cameras, so that the policy sees clients' pictures without their bars.
    """

    def __init__(
        self, policy: ChunkSource, joints: int, layout: Layout, metadata: Mapping[str, Any],
        host: str = "127.0.0.1", port: int = 8000, max_mb: float = 64.0, sizes: Mapping[str, Size] | None = None,
    ) -> None:  # fmt: skip
        """Bind. Raises RemoteError when the port is taken or not allowed."""
        self._policy, self._joints, self._layout, self._metadata = policy, joints, layout, pack(metadata)
        self._lock, self._seed, self._sizes = threading.Lock(), 0, sizes
        self._connections: set[Any] = set()
        self._closing = threading.Event()
        try:
            self._server = sockets().sync.server.serve(
                self._talk, host, port, compression=None, max_size=round(max_mb * 1e6), process_request=_health
            )
        except OSError as error:
            raise RemoteError(f"cannot serve on {host}:{port}: {error.strerror}; choose another --port") from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="policy server")

    @property
    def address(self) -> str:
        """Where clients connect."""
        host, port = self._server.socket.getsockname()[:2]
        return f"ws://{host}:{port}"

    def __enter__(self) -> "PolicyServer":
        """Serve in the background."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and close every connection; websockets before 17 leaves that to us."""
        self._server.shutdown()
        self._thread.join()
        self._closing.set()
        for connection in tuple(self._connections):
            connection.close(GOING_AWAY)

    def wait(self) -> None:
        """Serve until interrupted."""
        self._thread.join()

    def _talk(self, connection: Any) -> None:
        """One client: metadata, then an answer per observation; a refused one ends with its reason as text."""
        self._connections.add(connection)
        try:
            if self._closing.is_set():
                return
            connection.send(self._metadata)
            for data in connection:
                try:
                    answer = self._answer(data)
                except ImageWamError as error:
                    connection.send(f"{type(error).__name__}: {error}")
                    connection.close(INTERNAL_ERROR, "the reason is in the frame before")
                    return
                connection.send(answer)
        except sockets().exceptions.ConnectionClosed:
            return  # the client has gone
        finally:
            self._connections.discard(connection)

    def _answer(self, data: bytes | str) -> bytes:
        if isinstance(data, str):
            raise RemoteError("expected a binary frame, found text; does the client speak openpi?")
        observation = self._layout.read(unpack(data), self._joints, self._sizes)
        with self._lock:
            self._seed += 1
            start = time.perf_counter()
            chunk = self._policy.infer(observation, self._seed)
            spent_s = time.perf_counter() - start
        return pack({"actions": chunk.positions, "server_timing": {"infer_ms": 1e3 * spent_s}})


def _health(connection: Any, request: Any) -> Any:
    """Answer GET /healthz; everything else becomes a websocket."""
    return connection.respond(http.HTTPStatus.OK, "OK\n") if request.path == HEALTH else None
