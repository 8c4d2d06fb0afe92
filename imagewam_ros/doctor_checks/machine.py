# SPDX-License-Identifier: Apache-2.0
"""The computer: disk, shared memory, middleware settings, clock, scheduling. Linux only.

Sources: docs.ros.org (discovery range, Fast DDS and Cyclone DDS tuning); what in-flight images need
of shared memory was measured with three VGA cameras.
"""

import ctypes
import os
import resource
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.paths import share_dir
from imagewam_ros.doctor_checks.finding import Finding, failed, passed, warned

MB, GB = 1_000_000, 1_000_000_000
WARN_MINUTES, FAIL_MINUTES = 30.0, 2.0
IMAGE_SEGMENT = 8 * 1024 * 1024
"""Shared memory of a process that publishes images under fastdds/shm8.xml."""
PLAIN_SEGMENT = 600 * 1024
"""Of any other process: 512 KB and its ports."""
OTHER_PROCESSES = 10
LARGEST_DEFAULT_FRAME = 150_000
"""Frames up to this size get through the default segment of 512 KB."""
BUFFER = 10 * 1024 * 1024
"""Receive buffer that UDP middleware wants for images."""
PROFILES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
RANGES = ("SUBNET", "LOCALHOST", "OFF", "SYSTEM_DEFAULT")
LAST_DOMAIN = 101
TIME_ERROR = 5
"""What adjtimex returns while nothing disciplines the clock."""


def check_disk(folder: Path, robot: Embodiment) -> Iterator[Finding]:
    """Say for how long `folder` can take raw recordings of all cameras."""
    free = shutil.disk_usage(folder).free
    rate = sum(camera.width * camera.height * 3 * camera.rate_hz for camera in robot.cameras)
    minutes = free / rate / 60 if rate else float("inf")
    found = f"{free / GB:.1f} GB free in {folder}: {minutes:.0f} min of raw images at {rate / MB:.1f} MB/s"
    if minutes < WARN_MINUTES:
        remedy = "free space, record compressed images, or choose another folder with --folder"
        yield (failed if minutes < FAIL_MINUTES else warned)("disk", found, remedy)
    else:
        yield passed("disk", found)


def check_shared_memory(total: int, free: int, stale: int, cameras: int) -> Iterator[Finding]:
    """Judge bytes of /dev/shm; stale is what Fast DDS holds in it, for living processes or for dead ones."""
    need = max(cameras, 1) * IMAGE_SEGMENT + OTHER_PROCESSES * PLAIN_SEGMENT
    found = f"/dev/shm has {free / MB:.0f} of {total / MB:.0f} MB free; cameras and graph take {need / MB:.0f}"
    if free + stale < need:  # what Fast DDS holds serves a running graph, or can be removed
        yield failed("shared memory", found, "in a container, start it with --shm-size=256m; else enlarge the tmpfs")
    else:
        yield passed("shared memory", found)
    if stale > need:
        yield warned(
            "stale segments",
            f"{stale / MB:.0f} MB of Fast DDS segments lie in /dev/shm; killed processes leave theirs behind",
            "fastdds shm clean; or, while nothing of ROS runs, remove /dev/shm/fastrtps_*",
        )


def shared_memory(folder: Path = Path("/dev/shm")) -> tuple[int, int, int]:
    """Return total and free bytes of `folder` and the bytes of Fast DDS segments in it."""
    usage = shutil.disk_usage(folder)
    return usage.total, usage.free, sum(path.stat().st_size for path in folder.glob("fastrtps_*") if path.is_file())


def check_middleware(environment: Mapping[str, str], robot: Embodiment, receive_buffer: int) -> Iterator[Finding]:
    """Judge ROS's environment variables; receive_buffer is net.core.rmem_max in bytes."""
    implementation = environment.get("RMW_IMPLEMENTATION") or "rmw_fastrtps_cpp"
    frame = max((camera.width * camera.height * 3 for camera in robot.cameras), default=0)
    if "fastrtps" in implementation:
        yield from _check_fastdds(environment, frame)
    elif "cyclone" in implementation and frame > LARGEST_DEFAULT_FRAME and receive_buffer < BUFFER:
        yield warned(
            "middleware",
            f"Cyclone DDS with net.core.rmem_max {receive_buffer / MB:.1f} MB; frames are {frame / MB:.1f} MB",
            "sudo sysctl -w net.core.rmem_max=2147483647, and SocketReceiveBufferSize in CYCLONEDDS_URI",
        )
    elif "zenoh" in implementation:
        remedy = "ros2 run rmw_zenoh_cpp rmw_zenohd in a terminal of its own, unless your configuration does without"
        yield warned("middleware", "rmw_zenoh_cpp needs a router for discovery; doctor cannot see one", remedy)
    else:
        yield passed("middleware", implementation)
    yield from _check_reach(environment, "fastrtps" in implementation)
    yield from _check_domain(environment.get("ROS_DOMAIN_ID", ""))


def _check_fastdds(environment: Mapping[str, str], frame: int) -> Iterator[Finding]:
    named = {name: environment[name] for name in PROFILES if environment.get(name)}
    absent = [f"{name}={path}" for name, path in named.items() if not Path(path).is_file()]
    if absent:
        yield failed("middleware", f"no such file: {', '.join(absent)}", "correct or unset the variable")
    elif frame > LARGEST_DEFAULT_FRAME and set(named.values()) <= {str(share_dir() / "fastdds" / "local.xml")}:
        yield warned(
            "middleware",
            f"Fast DDS with its default 512 KB of shared memory; most raw frames of {frame / MB:.1f} MB would be lost",
            f"imagewam up sets this itself; for other camera drivers export {PROFILES[0]}=.../fastdds/shm8.xml",
        )
    else:
        yield passed("middleware", f"Fast DDS, profile {', '.join(named.values()) or 'default'}")


def _check_reach(environment: Mapping[str, str], fastdds: bool) -> Iterator[Finding]:
    reach, only = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", ""), environment.get("ROS_LOCALHOST_ONLY", "")
    humble = environment.get("ROS_DISTRO") == "humble"
    if reach and reach not in RANGES:
        yield failed("discovery", f"ROS_AUTOMATIC_DISCOVERY_RANGE={reach} is none of {', '.join(RANGES)}", "correct it")
    elif reach == "OFF":
        yield failed(
            "discovery", "ROS_AUTOMATIC_DISCOVERY_RANGE=OFF: processes do not find each other", "set it to LOCALHOST"
        )
    elif only == "1" or (reach == "LOCALHOST" and not humble):
        bound = any(Path(environment.get(name, "")).name.startswith("local") for name in PROFILES)
        found = "nobody is looked for on other computers"
        open_still = "; drivers still answer who knows this one's address, until their profile is fastdds/local.xml"
        yield passed("discovery", found + open_still * (fastdds and not humble and not bound))
    else:
        name = "ROS_LOCALHOST_ONLY=1" if humble else "ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST"
        ours = "" if humble or reach else "; imagewam up and the launch file keep theirs on this computer"
        yield warned(
            "discovery",
            f"what is started here takes part with everyone in the subnet, who may command the arms{ours}",
            f"export {name}, or use SROS2 when the cell spans computers",
        )


def _check_domain(text: str) -> Iterator[Finding]:
    if not text or (text.isdecimal() and int(text) <= LAST_DOMAIN):
        yield passed("ROS domain", text or "0, the default")
    else:
        yield failed("ROS domain", f"ROS_DOMAIN_ID={text}", f"choose a whole number from 0 to {LAST_DOMAIN}")


def check_scheduling(governors: frozenset[str], priority: int) -> Iterator[Finding]:
    """Judge the CPU governors in use and the real-time priority that this user may ask for."""
    if "powersave" in governors:
        yield warned("CPU governor", "powersave", "sudo cpupower frequency-set -g performance")
    if priority <= 0:
        yield warned(
            "real-time priority",
            "this user may not ask for SCHED_FIFO; the executor then shares its core with everything else",
            "add '@realtime - rtprio 98' to /etc/security/limits.conf, join the group, log in again",
        )
    else:
        yield passed("real-time priority", f"up to {priority}")


def governors(folder: Path = Path("/sys/devices/system/cpu")) -> frozenset[str]:
    """Return the governors of all CPUs; empty where the kernel does not say."""
    return frozenset(
        path.read_text(encoding="utf8").strip() for path in folder.glob("cpu[0-9]*/cpufreq/scaling_governor")
    )


def real_time_priority() -> int:
    """Return the highest SCHED_FIFO priority that this user may ask for."""
    if os.geteuid() == 0:
        return 99
    return resource.getrlimit(resource.RLIMIT_RTPRIO)[0]


def check_clock(state: int) -> Iterator[Finding]:
    """Judge what adjtimex returned."""
    if state == TIME_ERROR:
        remedy = "run chrony or systemd-timesyncd on every computer of the cell; one computer alone needs neither"
        yield warned("clock", "nothing keeps this computer's clock in step", remedy)
    else:
        yield passed("clock", "kept in step by time synchronisation")


def clock_state() -> int:
    """Return the kernel's clock state; reading needs no privilege."""
    return int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)))


def receive_buffer(path: Path = Path("/proc/sys/net/core/rmem_max")) -> int:
    """Return net.core.rmem_max in bytes, 0 where the kernel does not say."""
    return int(path.read_text(encoding="utf8")) if path.is_file() else 0
