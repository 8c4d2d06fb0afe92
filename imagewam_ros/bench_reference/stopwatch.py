# SPDX-License-Identifier: Apache-2.0
"""Times of the phases of one run: wall and process time on a CPU, events on a GPU."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class Stopwatch:
    """One run. On a GPU nothing waits before `finish`."""

    device: torch.device
    wall_ms: dict[str, float] = field(default_factory=dict)
    process_ms: dict[str, float] = field(default_factory=dict)
    total_ms: float = 0.0
    cpu_ms: float = 0.0
    _events: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure one phase."""
        if self.device.type == "cuda":
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record(torch.cuda.current_stream(self.device))
            yield
            last.record(torch.cuda.current_stream(self.device))
            self._events[name] = first, last
        else:
            start, cpu = time.perf_counter(), time.process_time()
            yield
            self.wall_ms[name] = (time.perf_counter() - start) * 1e3
            self.process_ms[name] = (time.process_time() - cpu) * 1e3

    @contextmanager
    def run(self) -> Iterator[None]:
        """Measure the whole; what no phase claims is `rest`."""
        start, cpu = time.perf_counter(), time.process_time()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.total_ms, self.cpu_ms = (time.perf_counter() - start) * 1e3, (time.process_time() - cpu) * 1e3
        self.wall_ms |= {name: first.elapsed_time(last) for name, (first, last) in self._events.items()}
        self.wall_ms["rest"] = self.total_ms - sum(self.wall_ms.values())

    def phase_ms(self, name: str) -> float:
        """Process time of a phase on a CPU, its time on a GPU there."""
        return self.process_ms.get(name, self.wall_ms[name])


def quantiles(values: list[float]) -> Mapping[str, float]:
    """p50, p95 and p99 of a few values: the smallest that the stated part does not exceed."""
    ordered = sorted(values)
    return {f"p{q}": ordered[-(-q * len(ordered) // 100) - 1] for q in (50, 95, 99)}
