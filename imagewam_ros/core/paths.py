# SPDX-License-Identifier: Apache-2.0
"""Where the package's own files lie, in a checkout, a pip installation or a colcon overlay."""

import os
import sys
from pathlib import Path

PACKAGE = "imagewam_ros"


def share_dir() -> Path:
    """Return the folder that holds config/, launch/, urdf/ and models/.

    Raises FileNotFoundError when the package is neither a checkout nor installed.
    """
    checkout = Path(__file__).resolve().parents[2]
    prefixes = [Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    candidates = [checkout, *(prefix / "share" / PACKAGE for prefix in (*prefixes, Path(sys.prefix)))]
    for folder in candidates:
        if (folder / "config" / "robots").is_dir():
            return folder
    raise FileNotFoundError(f"no config/robots in {', '.join(map(str, candidates))}; install the package again")
