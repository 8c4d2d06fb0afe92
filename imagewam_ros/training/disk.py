# SPDX-License-Identifier: Apache-2.0
"""Files of a run on a disk that may be full: space is taken before it is needed, and a failed write says what to do."""

import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from safetensors import SafetensorError

from imagewam_ros.core.errors import DiskError

ADVICE = "free some space or choose an --out on another disk, then give the command again; what is whole is used again"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong while `path` is written into an DiskError. For blocks that write and nothing else."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise DiskError(f"cannot write {path}: {error}; {ADVICE}") from error


def reserve(path: Path, kind: DTypeLike, shape: tuple[int, ...]) -> "np.memmap[Any, Any]":
    """Make an .npy file that has its blocks on the disk already, and return it as an array to write to.

    A sparse file would end the process by a signal when the disk is full in the middle. Raises DiskError when
    the space is not there.
    """
    path.unlink(missing_ok=True)
    needed, free = math.prod(shape) * np.dtype(kind).itemsize, shutil.disk_usage(path.parent).free
    if needed > free:
        raise DiskError(f"{path} needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; {ADVICE}")
    try:
        with writing(path):
            array = np.lib.format.open_memmap(path, "w+", kind, shape)
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except DiskError:
        path.unlink(missing_ok=True)
        raise
    return array
