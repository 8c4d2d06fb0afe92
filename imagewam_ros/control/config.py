# SPDX-License-Identifier: Apache-2.0
"""All parameters of the executor in one value."""

from dataclasses import dataclass

from imagewam_ros.control.acceptance import AcceptanceConfig
from imagewam_ros.control.mover import MotionConfig
from imagewam_ros.control.watchdog import WatchdogConfig
from imagewam_ros.core.errors import ConfigError


@dataclass(frozen=True)
class ExecutorConfig(MotionConfig, AcceptanceConfig, WatchdogConfig):
    """All parameters of the executor; those of merging, curve, acceptance and watchdogs are inherited.

    commander_timeout_s: how long a commander that sends nothing keeps out those of lower priority.
    takeover_match_s: a human's first row may be so many seconds of full speed from the arm.
    """

    commander_timeout_s: float = 0.5
    takeover_match_s: float = 0.1

    def __post_init__(self) -> None:
        MotionConfig.__post_init__(self)
        AcceptanceConfig.__post_init__(self)
        WatchdogConfig.__post_init__(self)
        for name in ("commander_timeout_s", "takeover_match_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be positive, found {getattr(self, name)}")
