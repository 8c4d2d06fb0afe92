# SPDX-License-Identifier: Apache-2.0
"""Curves of a run for TensorBoard, beside log.csv, where that is installed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imagewam_ros.core.errors import ConfigError


class Board:
    """Event files in one folder."""

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError without TensorBoard."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError(
                "--tensorboard needs TensorBoard: pip install -r requirements/training.txt; "
                "log.csv has the same numbers"
            ) from None
        self._writer: Any = SummaryWriter(str(folder))

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Add one point to each curve."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()
