# SPDX-License-Identifier: Apache-2.0
"""What the processes of a cell tell ROS's middleware: stay on this computer, and room for images.

ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST keeps a process from looking for others elsewhere. Fast DDS listens on every
network all the same, and answers whoever names this computer as a static peer; fastdds/local*.xml bind it to 127.0.0.1.
"""

from collections.abc import Mapping

from imagewam_ros.core.paths import ros_prefixes, share_dir

RANGE, LOCALHOST_ONLY, DISTRO = "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY", "ROS_DISTRO"
LOCAL = "LOCALHOST"


def chosen_environment(base: Mapping[str, str], publishes_images: bool) -> dict[str, str]:
    """Return what a process needs beside `base`, its environment; what the site chose there stays.

    Humble does not know RANGE, and a site that knows LOCALHOST_ONLY has decided. A second cell under one launch finds
    there what the first one put, which is no choice of the site's.
    """
    profiles = share_dir() / "fastdds"
    free = not base.get(LOCALHOST_ONLY) and not base.get(RANGE)
    added = {RANGE: LOCAL} if free else {}
    local = {**base, **added}.get(RANGE) == LOCAL and base.get(DISTRO) != "humble"
    if base.get(profile_variable(), "") in ("", str(profiles / "local.xml")) and (local or publishes_images):
        names = {(True, True): "local_shm8", (True, False): "local", (False, True): "shm8"}
        added[profile_variable()] = str(profiles / f"{names[local, publishes_images]}.xml")
    return added


def profile_variable() -> str:
    """Name of the variable that makes Fast DDS read a profile.

    Three VGA cameras do not fit into the default 512 KB of shared memory, and two thirds of the frames
    are lost. Fast DDS 3 (Kilted and newer) warns when it is given the variable of Fast DDS 2.
    """
    three = any((prefix / "share" / "fastdds").is_dir() for prefix in ros_prefixes())
    return "FASTDDS_DEFAULT_PROFILES_FILE" if three else "FASTRTPS_DEFAULT_PROFILES_FILE"
