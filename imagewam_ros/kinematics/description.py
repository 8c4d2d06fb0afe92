# SPDX-License-Identifier: Apache-2.0
"""The robot description: expand a xacro file to URDF text."""

from collections.abc import Mapping
from pathlib import Path
from xml.parsers.expat import ExpatError

import xacro

from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.paths import share_dir

DUAL_ARM = "dual_arm.urdf.xacro"


def describe(embodiment: Embodiment, arguments: Mapping[str, str] | None = None) -> str:
    """Return the URDF text of a robot. Raises ConfigError as `expand` does."""
    return expand(share_dir() / "urdf" / embodiment.urdf, arguments)


def expand(path: Path | None = None, arguments: Mapping[str, str] | None = None) -> str:
    """Return the URDF text of a xacro file, by default the simulated cell's.

    Raises ConfigError when the file is missing or xacro refuses it.
    """
    source = path or share_dir() / "urdf" / DUAL_ARM
    if not source.is_file():
        raise ConfigError(f"no such robot description: {source}; check the path or install the package again")
    try:
        document = xacro.process_file(str(source), mappings=dict(arguments or {}))
    except (xacro.XacroException, ExpatError) as error:
        missing = any(word in str(error) for word in ("PackageNotFound", "AMENT_PREFIX_PATH", "ament_index"))
        hint = "; install and source the packages that it takes its arms from" if missing else ""
        raise ConfigError(f"xacro cannot expand {source}: {error}{hint}") from error
    return str(document.toprettyxml(indent="  "))
