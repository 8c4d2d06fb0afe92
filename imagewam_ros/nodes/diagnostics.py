# SPDX-License-Identifier: Apache-2.0
"""Rates, latencies and the present complaint of a node, once a second on /diagnostics."""

import threading
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Mapping

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock
from rclpy.node import Node

from imagewam_ros.nodes import qos

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
WINDOW = 2000
"""Samples that a percentile looks at: ten seconds at 200 Hz."""

BUCKETS_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, float("inf"))
"""Upper edges of a histogram of durations."""


class Meter:
    """Counts events and remembers samples. Rates are per second of the caller's clock."""

    def __init__(self) -> None:
        """Start at zero."""
        self._counts: Counter[str] = Counter()
        self._before: Counter[str] = Counter()
        self._samples: dict[str, deque[float]] = {}
        self._rates: dict[str, float] = {}
        self._buckets: dict[str, Counter[float]] = {}
        self._since_ns = 0
        self._lock = threading.Lock()

    def count(self, name: str) -> None:
        """Count one event."""
        with self._lock:
            self._counts[name] += 1

    def sample(self, name: str, value: float) -> None:
        """Remember one measurement, in the unit that `name` ends in."""
        with self._lock:
            self._samples.setdefault(name, deque(maxlen=WINDOW)).append(value)

    def bucket(self, name: str, value_s: float) -> None:
        """Count one duration in a histogram that never forgets."""
        edge = BUCKETS_S[min(bisect_left(BUCKETS_S, value_s), len(BUCKETS_S) - 1)]
        with self._lock:
            self._buckets.setdefault(name, Counter())[edge] += 1

    def rate(self, name: str) -> float:
        """Events per second between the two latest reports, 0 before."""
        return self._rates.get(name, 0.0)

    def report(self, now_ns: int) -> dict[str, str]:
        """Return rates since the last report and percentiles over the window, as text."""
        elapsed_s = (now_ns - self._since_ns) / 1e9 if self._since_ns else 0.0
        with self._lock:  # other threads add names and values
            counts = Counter(self._counts)
            windows = {name: list(samples) for name, samples in self._samples.items()}
            histograms = {name: Counter(buckets) for name, buckets in self._buckets.items()}
        values = {}
        for name, total in counts.items():
            if elapsed_s > 0:
                self._rates[name] = (total - self._before[name]) / elapsed_s
                values[f"{name}_rate_hz"] = f"{self._rates[name]:.2f}"
            values[f"{name}_total"] = str(total)
        for name, samples in windows.items():
            p50, p95, p99, largest = np.quantile(samples, (0.5, 0.95, 0.99, 1.0))
            values[name] = f"p50 {p50:.6f} p95 {p95:.6f} p99 {p99:.6f} max {largest:.6f}"
        for name, counted in histograms.items():
            values[f"{name}_histogram"] = " ".join(f"<={edge * 1e3:g}ms:{counted[edge]}" for edge in BUCKETS_S)
        self._before, self._since_ns = counts, now_ns
        return values


class Diagnostics:
    """One status of one node on /diagnostics, published once a second of wall time and on every change."""

    def __init__(self, node: Node, steady: Clock) -> None:
        """Publish for `node`, under its name, paced by a steady clock."""
        self.meter = Meter()
        self._node, self.level, self.message = node, OK, "not configured"
        self._values: dict[str, str] = {}
        self._steady = steady
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
        node.create_timer(1.0, self.publish, clock=self._steady)

    def set(self, level: bytes, message: str, values: Mapping[str, object] | None = None) -> None:
        """State how the node is. A change of level or message is published at once."""
        changed = (level, message) != (self.level, self.message)
        self.level, self.message = level, message
        if values is not None:
            self._values = {key: str(value) for key, value in values.items()}
        if changed:
            self._send(self._values)

    def publish(self) -> None:
        """Publish status, rates and percentiles."""
        self._send({**self._values, **self.meter.report(self._steady.now().nanoseconds)})

    def _send(self, values: Mapping[str, str]) -> None:
        name = self._node.get_fully_qualified_name()
        status = DiagnosticStatus(
            level=self.level,
            name=name,
            message=self.message,
            hardware_id=name,
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)
