# SPDX-License-Identifier: Apache-2.0
"""Choose MuJoCo's OpenGL before mujoco is imported; the other modules of this room import it from here.

MuJoCo reads MUJOCO_GL once, at import. A value that the user set is kept; otherwise EGL, else
OSMesa, else none: physics then runs and rendering is refused with a reason.
"""

import os
from ctypes.util import find_library

EGL_LIBRARIES = ("EGL", "OpenGL"), ("EGL", "GL")
"""EGL makes the context, the second library holds the GL entry points."""


def choose_backend() -> str:
    """Return "egl", "osmesa" or "disable", by the libraries that this machine has."""
    if any(all(find_library(name) for name in names) for names in EGL_LIBRARIES):
        return "egl"
    return "osmesa" if find_library("OSMesa") else "disable"


if "MUJOCO_GL" not in os.environ:
    os.environ["MUJOCO_GL"] = choose_backend()
BACKEND = os.environ["MUJOCO_GL"]

import mujoco  # noqa: E402

__all__ = ["BACKEND", "choose_backend", "mujoco"]
