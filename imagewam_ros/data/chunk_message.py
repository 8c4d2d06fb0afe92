# SPDX-License-Identifier: Apache-2.0
"""The message imagewam_ros/ActionChunk as a chunk, whether rclpy or a reader of bags made the message."""

from typing import Any

import numpy as np

from imagewam_ros.core.errors import EmbodimentMismatch
from imagewam_ros.core.schema import ActionChunk, Source


def read_chunk(message: Any) -> ActionChunk:
    """Return the chunk; its numbers are judged by the executor.

    Raises EmbodimentMismatch for a wrong shape and for an unknown source.
    """
    joints = len(message.joint_names)
    if len(message.positions) != message.rows * joints:
        raise EmbodimentMismatch(
            f"chunk {message.sequence} holds {len(message.positions)} positions, "
            f"expected {message.rows} rows of {joints} joints"
        )
    if message.source not in tuple(Source):
        raise EmbodimentMismatch(f"chunk {message.sequence} has unknown source {message.source}")
    return ActionChunk(
        stamp_ns=stamp_ns(message.header.stamp),
        period_ns=message.period_ns,
        joint_names=tuple(message.joint_names),
        positions=np.frombuffer(message.positions, dtype=np.float64).reshape(message.rows, joints),
        first_row_offset_periods=message.first_row_offset_periods,
        sequence=message.sequence,
        source=Source(message.source),
        ready_ns=stamp_ns(message.ready),
        instruction_id=message.instruction_id,
        contract_hash=message.contract_hash,
        committed_rows=message.committed_rows,
        spread=np.frombuffer(message.spread, dtype=np.float32).astype(np.float64),
        seed=message.seed,
        denoise_steps=message.denoise_steps,
        inference_s=message.inference_s,
        schema=message.schema,
    )


def stamp_ns(stamp: Any) -> int:
    """Nanoseconds of a builtin_interfaces/Time."""
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)
