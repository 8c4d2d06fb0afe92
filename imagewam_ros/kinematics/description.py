# SPDX-License-Identifier: Apache-2.0
"""The robot description: expand a xacro file to URDF text."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.parsers.expat import ExpatError

import xacro

from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.paths import PACKAGE, ros_prefixes, share_dir

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
        with _own_files_found():
            document = xacro.process_file(str(source), mappings=dict(arguments or {}))
    except (xacro.XacroException, ExpatError) as error:
        absent = re.search(r"package '(\w+)' not found", str(error))
        why = f"no package {absent[1]!r} in {', '.join(map(str, ros_prefixes()))}" if absent else str(error)
        hint = "; install and source the packages that it takes its arms from" if "ament_index" in str(error) else ""
        if "parameter" in why.lower():
            hint = "; is a vendor's package of another version than the first lines of this file name?"
        raise ConfigError(f"xacro cannot expand {source}: {why}{hint}") from error
    return str(document.toprettyxml(indent="  "))


@contextlib.contextmanager
def _own_files_found() -> Iterator[None]:
    """Let `$(find imagewam_ros)` lead to our own files in a checkout too, which no index of ROS lists."""
    before = os.environ.get("AMENT_PREFIX_PATH")
    with tempfile.TemporaryDirectory(prefix="imagewam_") as folder:
        share = Path(folder) / "share"
        index = share / "ament_index" / "resource_index" / "packages"
        index.mkdir(parents=True)
        (index / PACKAGE).touch()
        (share / PACKAGE).symlink_to(share_dir(), target_is_directory=True)
        os.environ["AMENT_PREFIX_PATH"] = os.pathsep.join([folder, *map(str, ros_prefixes())])
        try:
            yield
        finally:
            if before is None:
                del os.environ["AMENT_PREFIX_PATH"]
            else:
                os.environ["AMENT_PREFIX_PATH"] = before
