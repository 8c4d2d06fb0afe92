# SPDX-License-Identifier: Apache-2.0
"""A small policy server on loopback that speaks openpi's protocol with its own packing, and can misbehave."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgpack
import numpy as np
from websockets.sync.server import ServerConnection, serve

Answer = Callable[[Mapping[str, Any]], Any]


def arrays(value: Any) -> Any:
    """Pack numpy arrays as openpi-client does."""
    return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}


def from_arrays(value: Mapping[Any, Any]) -> Any:
    if b"__ndarray__" not in value:
        return value
    return np.ndarray(buffer=value[b"data"], dtype=value[b"dtype"], shape=value[b"shape"])


class PolicyServerFake:
    """Answers observations with `answer`; what it returns goes out packed, bytes and text as they are.

    An answer of None closes the connection.
    """

    def __init__(self, answer: Answer, metadata: Any = None, wait_s: float = 0.0) -> None:
        self.seen: list[Mapping[str, Any]] = []
        self._connections: list[ServerConnection] = []
        self._answer, self._metadata, self._wait_s = answer, {} if metadata is None else metadata, wait_s
        self._server = serve(self._talk, "127.0.0.1", 0, compression=None, max_size=None)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.address = f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}"

    def __enter__(self) -> "PolicyServerFake":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        for connection in self._connections:  # websockets before 17 leaves them open
            connection.close()

    def _talk(self, connection: ServerConnection) -> None:
        self._connections.append(connection)
        connection.send(msgpack.packb(self._metadata))
        for data in connection:
            observation = msgpack.unpackb(data, object_hook=from_arrays)
            self.seen.append(observation)
            time.sleep(self._wait_s)
            answer = self._answer(observation)
            if answer is None:
                connection.close()
                return
            connection.send(answer if isinstance(answer, bytes | str) else msgpack.packb(answer, default=arrays))


def stand_still(rows: int = 10) -> Answer:
    """A policy that wants the joints where they are."""

    def answer(observation: Mapping[str, Any]) -> Any:
        state = np.asarray(observation["state"], dtype=np.float64)
        return {"actions": np.tile(state, (rows, 1)), "server_timing": {"infer_ms": 1.5}}

    return answer
