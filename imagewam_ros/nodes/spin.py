# SPDX-License-Identifier: Apache-2.0
"""Run one node until SIGINT or SIGTERM, stop it safely while it can still publish, exit 0.

ROS's own signal handling would invalidate the publishers first, and then no arm could be
braked. Terminal and launch both send SIGINT, so a second signal changes nothing.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from imagewam_ros.core.errors import ImageWamError

WAKE_S = 0.1
"""Longest time until a signal is seen."""

BAD_CONFIGURATION = 2

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Options of mallopt (Source: malloc.h of glibc)."""
KEPT_BYTES = 256 << 20
LARGEST_KEPT = 32 << 20


class _Signals:
    """Remember the first signal and swallow the others."""

    def __init__(self) -> None:
        self.received = ""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or signal.Signals(number).name


def run(make_node: Callable[[], Node], args: list[str] | None = None) -> int:
    """Spin the node that `make_node` returns; the exit status is 0 after a clean end.

    A node with `halt(reason)` is halted before its publishers go; one that sets `finished` ends by
    itself, with its `exit_status`.
    """
    keep_memory()
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    signals = _Signals()
    try:
        node = make_node()
    except ImageWamError as error:
        print(f"error: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return BAD_CONFIGURATION
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while not signals.received and rclpy.ok() and not getattr(node, "finished", False):
            executor.spin_once(timeout_sec=WAKE_S)
    finally:
        halt = getattr(node, "halt", None)
        if halt is not None and rclpy.ok():
            halt(signals.received or "the process ends")
        executor.shutdown(timeout_sec=1.0)
        status = int(getattr(node, "exit_status", 0))
        node.destroy_node()
        vars(node).clear()  # it holds itself in cycles, and the DDS participant lives as long as it does
        rclpy.try_shutdown()
    return status


def keep_memory() -> None:
    """Let freed memory stay with the process, so that the next image finds its pages mapped.

    A VGA image is above the size from which glibc maps every allocation anew: its page faults take longer than all
    the rest of receiving it (benchmarks/RESULTS.md). Other C libraries are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def leave(status: int) -> NoReturn:
    """End the process at once: the interpreter takes itself apart for up to seconds, with torch and on a busy machine.

    The DDS participant goes first, with its shared memory.
    """
    rclpy.get_default_context().destroy()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
