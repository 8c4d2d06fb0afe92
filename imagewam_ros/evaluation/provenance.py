# SPDX-License-Identifier: Apache-2.0
"""Where, when and with what an evaluation was made, so that two of them can be compared."""

import os
import platform
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("imagewam-ros", "torch", "numpy", "mujoco", "diffusers", "transformers")


def provenance() -> dict[str, Any]:
    """Return time (UTC), machine, processors, Python and versions of what shapes a result."""
    return {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": platform.node(),
        "system": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "command": " ".join(["imagewam", *sys.argv[1:]]),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
