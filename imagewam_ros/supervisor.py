# SPDX-License-Identifier: Apache-2.0
"""Start the graph's processes, pass on what they say, end them all.

Every process leads a session of its own, so Ctrl-C reaches only the supervisor, which passes it on.
A process that outlives its supervisor gets SIGTERM from the kernel: the executor can still brake.
"""

import contextlib
import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, NamedTuple

from imagewam_ros.control.braking import STOP_SHARE, longest_stop_s
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import GraphError
from imagewam_ros.core.paths import PACKAGE, ros_prefixes, share_dir
from imagewam_ros.graph import Death, Process, Value, parameters, words
from imagewam_ros.middleware import chosen_environment
from imagewam_ros.site_parameters import write_site_parameters

STAGES = ((signal.SIGINT, 1.2), (signal.SIGINT, 1.0), (signal.SIGTERM, 0.3), (signal.SIGKILL, 0.3))
"""What processes get, and how long they have, in s; together below 3 s. Those that deactivate others come first."""

STOP_MARGIN = 1.2
POLL_S = 0.05
PR_SET_PDEATHSIG = 1
Sink = Callable[[str, str], None]
"""Takes a process's name and one line of what it said."""


class Exit(NamedTuple):
    """A process that ended, with its exit code; negative is the signal that killed it."""

    process: Process
    code: int

    @property
    def as_planned(self) -> bool:
        """Whether the process was done."""
        return self.process.death is Death.FAILURE_ENDS_GRAPH and self.code == 0

    @property
    def ends_graph(self) -> bool:
        """Whether the rest must end too."""
        return self.process.death.ends_graph(self.code)

    def __str__(self) -> str:
        """Say what happened, for a person."""
        how = signal.Signals(-self.code).name if self.code < 0 else f"exit code {self.code}"
        means = Death.ENDS_GRAPH if self.ends_graph else self.process.death
        return f"{self.process.name} ended ({how}), which {means.value}"


class Supervisor:
    """Processes that live and end together. Use as a context manager from the main thread."""

    def __init__(self, processes: Sequence[Process], values: Mapping[str, Value], sink: Sink) -> None:
        self.processes, self.values, self.sink = processes, values, sink
        self._running: list[tuple[Process, subprocess.Popen[bytes]]] = []
        self._selector = selectors.DefaultSelector()
        self._partial: dict[str, bytes] = {}
        self.killed: list[str] = []
        self._stop_s = 0.0
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> "Supervisor":
        """Start every process, or none. Raises GraphError when something is missing, and as `site_parameters` does."""
        site = self._site_parameters()
        self._stop_s = _stop_s(str(self.values["robot"])) if "robot" in self.values else 0.0
        commands = [command(process, self.values, site) for process in self.processes]
        for process, said in zip(self.processes, commands, strict=True):
            child = subprocess.Popen(
                said,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment(process, os.environ),
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
            assert child.stdout is not None
            os.set_blocking(child.stdout.fileno(), False)
            self._selector.register(child.stdout, selectors.EVENT_READ, process.name)
            self._running.append((process, child))
        return self

    def __exit__(self, *_: object) -> None:
        """End every process that is left."""
        self.stop()

    @property
    def alive(self) -> dict[str, int]:
        """Process ids by name."""
        return {process.name: child.pid for process, child in self._running}

    def poll(self, timeout_s: float = POLL_S) -> list[Exit]:
        """Pass on what the processes say for up to `timeout_s`; return those that ended meanwhile."""
        for key, _ in self._selector.select(timeout_s):
            self._pass_on(key)
        ended = [(process, child) for process, child in self._running if child.poll() is not None]
        self._running = [pair for pair in self._running if pair not in ended]
        return [Exit(process, child.returncode) for process, child in ended]

    def stop(self) -> None:
        """End all processes and what they started, within 3 s or as long as the robot may take to stop."""
        groups = [child.pid for _, child in self._running]
        for stage, (number, patience_s) in enumerate(STAGES):
            asked = [child for process, child in self._running if stage > 0 or process.deactivates]
            for child in asked:
                _signal_group(child.pid, number)
            if number == signal.SIGKILL:
                self.killed = list(self.alive)
            end = time.monotonic() + max(patience_s, self._stop_s if stage == 1 else 0.0)
            while any(child.poll() is None for child in asked) and time.monotonic() < end:
                self.poll()
        self.poll(0.0)
        for group in groups:
            _signal_group(group, signal.SIGKILL)
        for key in list(self._selector.get_map().values()):
            self._pass_on(key)
        self._selector.close()
        if self._folder is not None:
            self._folder.cleanup()

    def _site_parameters(self) -> Path | None:
        if not self.values["parameters"]:
            return None
        self._folder = tempfile.TemporaryDirectory(prefix="imagewam_")
        path, namespace = str(self.values["parameters"]), str(self.values["namespace"])
        return write_site_parameters(path, namespace, Path(self._folder.name))

    def _pass_on(self, key: selectors.SelectorKey) -> None:
        stream: IO[bytes] = key.fileobj  # type: ignore[assignment]
        data = stream.read()
        if data == b"":
            self._selector.unregister(stream)
            stream.close()
        *lines, rest = (self._partial.pop(key.data, b"") + (data or b"")).split(b"\n")
        if rest and data != b"":
            self._partial[key.data] = rest
        elif rest:
            lines.append(rest)
        for line in lines:
            self.sink(key.data, line.decode(errors="replace"))


class Interrupts:
    """Turns SIGINT, SIGTERM and SIGHUP into a flag while it is open."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def __enter__(self) -> "Interrupts":
        """Take over the signals."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        self._before = {number: signal.signal(number, self._remember) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        """Give them back."""
        for number, action in self._before.items():
            signal.signal(number, action)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or signal.Signals(number)


def command(process: Process, values: Mapping[str, Value], site: Path | None = None) -> list[str]:
    """Return the words that start a process; `site` is a file of parameters. Raises GraphError when not installed."""
    script = [sys.executable] if process.package == PACKAGE else []
    said = [*script, str(executable(process.executable, process.package)), *words(process), "--ros-args"]
    said += [
        "--log-level",
        str(values["log_level"]),
        "--enclave",
        enclave(process.name),
        "-r",
        f"__node:={process.name}",
    ]
    namespace = str(values["namespace"]).strip("/")
    if namespace:
        said += ["-r", f"__ns:=/{namespace}"]
    for origin, target in process.remappings:
        said += ["-r", f"{origin}:={target}"]
    for name, value in parameters(process, values).items():
        said += ["-p", f"{name}:={json.dumps(value)}"]
    return said if site is None else [*said, "--params-file", str(site)]


def _stop_s(robot: str) -> float:
    """Longest soft stop of a robot in s. Raises ConfigError."""
    return STOP_MARGIN * longest_stop_s(load_embodiment(robot).limits, STOP_SHARE)


def enclave(name: str) -> str:
    """Return the identity of a process where SROS2 is in use; it means nothing elsewhere."""
    return f"/cell/{name}"


def executable(name: str, package: str = PACKAGE) -> Path:
    """Find a node's script in a checkout or an installation, or another package's program. Raises GraphError."""
    share = share_dir()
    ours = (share / "scripts" / name, share.parents[1] / "lib" / PACKAGE / name)
    places = ours if package == PACKAGE else tuple(prefix / "lib" / package / name for prefix in ros_prefixes())
    for place in places:
        if place.is_file():
            return place
    raise GraphError(
        f"no executable {name!r} in {' or '.join(str(p.parent) for p in places)}; install the package again"
    )


def environment(process: Process, base: Mapping[str, str]) -> dict[str, str]:
    """Environment of a process: on this computer alone unless the site chose otherwise, room for images."""
    return {**base, **chosen_environment(base, process.publishes_images), "PYTHONUNBUFFERED": "1"}


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)
