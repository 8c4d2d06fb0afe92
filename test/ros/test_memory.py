# SPDX-License-Identifier: Apache-2.0
"""Freed images stay mapped: the next one costs no page faults."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

COUNT = """
import resource
from imagewam_ros.nodes.spin import keep_memory
if {kept}:
    keep_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def image():
    return [bytearray(921600) for _ in range(6)]
image()
before = faults()
for _ in range(20):
    image()
print(faults() - before)
"""


def page_faults(kept: bool) -> int:
    """Of 120 VGA images, six at a time, after the first six."""
    told = subprocess.run([sys.executable, "-c", COUNT.format(kept=kept)], capture_output=True, text=True, check=True)
    return int(told.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_images_reuse_the_memory_of_images() -> None:
    assert page_faults(kept=True) < 300 < page_faults(kept=False)


def shared_memory(pid: int | str) -> set[str]:
    """Segments of Fast DDS that a process has mapped."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {line.split()[-1] for line in lines if "/dev/shm/fast" in line and "port" not in line}


def test_a_node_that_ends_leaves_no_shared_memory(spawn, probe) -> None:
    others = shared_memory("self")
    node = spawn("imagewam_ros.nodes.executor_node")
    assert probe.change("executor", "configure"), node.text()
    own = shared_memory(node.process.pid) - others
    assert node.stop() == 0, node.text()
    if not own:
        pytest.skip("this middleware maps no shared memory")
    assert not [name for name in own if Path(name).exists()]
