# SPDX-License-Identifier: Apache-2.0
"""Where the package's own files lie, in a checkout, a pip installation or a colcon overlay."""

import os
import sys
from pathlib import Path

from imagewam_ros.core.errors import CheckpointError, unknown_name

PACKAGE = "imagewam_ros"


def ros_prefixes() -> list[Path]:
    """Return where ROS 2 packages are installed: the sourced prefixes first, then Python's own."""
    sourced = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    return [*(Path(prefix) for prefix in sourced if prefix), Path(sys.prefix)]


def share_dir() -> Path:
    """Return the folder that holds config/, launch/, urdf/ and models/.

    Raises FileNotFoundError when the package is neither a checkout nor installed.
    """
    checkout = Path(__file__).resolve().parents[2]
    candidates = [checkout, *(prefix / "share" / PACKAGE for prefix in ros_prefixes())]
    for folder in candidates:
        if (folder / "config" / "robots").is_dir():
            return folder
    raise FileNotFoundError(f"no config/robots in {', '.join(map(str, candidates))}; install the package again")


def find_checkpoint(name: str) -> Path:
    """Return the directory of a checkpoint: a name in models/, or a path. Raises CheckpointError."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    folder = share_dir() / "models"
    known = sorted(p.parent.name for p in folder.glob("*/config.json"))
    if name in known:
        return folder / name
    if os.sep in name:
        raise CheckpointError(f"no checkpoint directory {path}; check the path")
    raise CheckpointError(unknown_name("checkpoint", name, known))
