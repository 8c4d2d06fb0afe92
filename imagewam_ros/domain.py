# SPDX-License-Identifier: Apache-2.0
"""ROS domains: one that the user names, or a private one that nobody else on this machine holds."""

import fcntl
import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imagewam_ros.core.errors import ConfigError, GraphError

DOMAINS = range(102)
"""Domains whose ports lie below the range that the kernel hands out."""


def use_domain(domain: int) -> None:
    """Let this process and its children speak in one ROS domain. Raises ConfigError."""
    if domain not in DOMAINS:
        raise ConfigError(f"ROS domain must be {DOMAINS[0]} to {DOMAINS[-1]}, found {domain}")
    os.environ["ROS_DOMAIN_ID"] = str(domain)


@contextmanager
def private_domain() -> Iterator[int]:
    """Hold a domain other than 0 while the context is open; the kernel frees it with the process."""
    domains = list(DOMAINS[1:])
    random.shuffle(domains)
    for domain in domains:
        path = Path(tempfile.gettempdir(), f"imagewam_ros_domain_{domain}.lock")
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            yield domain
            return
    raise GraphError(f"all {len(domains)} ROS domains are taken on this machine; choose one with --domain")
