# SPDX-License-Identifier: Apache-2.0
"""Where the time goes between a shutter and its chunk, as percentiles on /diagnostics.

Instants are in ns of the node's clock, so with simulated time they are as coarse as its ticks.
"""

from dataclasses import dataclass
from typing import NamedTuple

from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMsg

from imagewam_ros.core.schema import ActionChunk
from imagewam_ros.model.chunking import DelayForecast
from imagewam_ros.nodes.diagnostics import Meter

STAGES = ("transport_s", "waiting_s", "conversion_s", "handover_s", "preprocess_s", "model_s", "publish_s")
"""From the newest camera stamp to the published chunk, without gap or overlap."""


class Received(NamedTuple):
    """An image message and the instant of its arrival."""

    message: ImageMsg | CompressedImage
    at_ns: int


@dataclass(frozen=True)
class ChunkTrace:
    """One observation: its newest camera stamp, its last image's arrival, its pairing, its pixels."""

    newest_ns: int
    arrived_ns: int
    paired_ns: int
    converted_ns: int

    def sample(self, meter: Meter, chunk: ActionChunk, preprocess_s: float, ready_ns: int, published_ns: int) -> None:
        """Remember how long each stage took, and all of them but the model's.

        chunk came out of the policy at ready_ns and was published at published_ns; preprocess_s is
        the part of its inference before the model.
        """
        inference_s = chunk.inference_s
        durations_s = (
            (self.arrived_ns - self.newest_ns) / 1e9,
            (self.paired_ns - self.arrived_ns) / 1e9,
            (self.converted_ns - self.paired_ns) / 1e9,
            (ready_ns - self.converted_ns) / 1e9 - inference_s,
            preprocess_s,
            inference_s - preprocess_s,
            (published_ns - ready_ns) / 1e9,
        )
        for stage, duration_s in zip(STAGES, durations_s, strict=True):
            meter.sample(stage, duration_s)
        meter.sample("overhead_s", (published_ns - self.newest_ns) / 1e9 - (inference_s - preprocess_s))
        meter.sample("inference_s", inference_s)
        meter.sample("camera_to_chunk_s", (ready_ns - chunk.stamp_ns) / 1e9)


class DelayWatch:
    """Forecasts the delays of chunks from measured ones, and says when committed rows did not cover a chunk's own."""

    def __init__(self, quantile: float, tick_ns: int, meter: Meter) -> None:
        """A chunk acts at the executor's next tick, at most `tick_ns` after it is ready."""
        self._forecast, self._tick_ns, self._meter = DelayForecast(quantile), tick_ns, meter

    @property
    def forecast_ns(self) -> int:
        """Delay that chunks are committed for now."""
        return self._forecast.forecast_ns

    def judge(self, chunk: ActionChunk, ready_ns: int, forecast_ns: int) -> str:
        """Record what a chunk took that was committed for `forecast_ns`; a complaint, or nothing."""
        delay_ns = ready_ns - chunk.stamp_ns + self._tick_ns
        self._forecast.record(delay_ns)
        self._meter.sample("delay_s", delay_ns / 1e9)
        self._meter.sample("delay_forecast_s", forecast_ns / 1e9)
        if not chunk.committed_rows or delay_ns <= forecast_ns:
            return ""
        self._meter.count("chunk later than forecast")
        return (
            f"chunk {chunk.sequence} took {delay_ns / 1e9:.3f} s, its {chunk.committed_rows} committed rows were "
            f"forecast to cover {forecast_ns / 1e9:.3f} s; rows that are past when it comes are left out"
        )
