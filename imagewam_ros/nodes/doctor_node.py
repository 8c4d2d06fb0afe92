# SPDX-License-Identifier: Apache-2.0
"""The doctor in the graph: its activation looks the cell over and refuses while a check fails.

Listed before the executor among bringup's nodes it keeps an unhealthy cell from moving. The
policy's node warms itself up, so no policy is loaded here. `doctor/check` looks again at any time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from std_srvs.srv import Trigger

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import GraphError
from imagewam_ros.doctor import Request, examine
from imagewam_ros.doctor_checks.finding import Finding, Level, page
from imagewam_ros.nodes import parameters, topics
from imagewam_ros.nodes.lifecycle import ManagedNode
from imagewam_ros.nodes.spin import run


@dataclass(frozen=True)
class DoctorConfig:
    """checkpoint is a name in models/, a path, or none; seconds is how long a look at the streams takes."""

    robot: str = "sim_cell"
    checkpoint: str = "tiny"
    urdf: str = ""
    folder: str = "."
    seconds: float = 3.0


class DoctorNode(ManagedNode):
    """Look when activated and when asked. A look blocks this node, which does nothing else."""

    def __init__(self) -> None:
        super().__init__("doctor")

    def setup(self) -> None:
        """Read what to look at and offer the service."""
        config = parameters.declare(self, DoctorConfig)
        self._robot = load_embodiment(config.robot)
        self._request = Request(
            urdf=Path(config.urdf) if config.urdf else None,
            policy=config.checkpoint,
            folder=Path(config.folder),
            live="required",
            seconds=config.seconds,
            namespace=self.get_namespace(),
            inference=False,
        )
        self.serve(Trigger, topics.DOCTOR_CHECK, lambda *_: self._look())

    def start(self) -> None:
        """Raise GraphError with what fails and the remedy."""
        self._look()

    def _look(self) -> str:
        findings = list(examine(self._robot, self._request))
        self.get_logger().info(page(f"robot {self._robot.name}", findings))
        if failures := _lines(findings, Level.FAIL):
            raise GraphError(f"the cell is not healthy: {' | '.join(failures)}")
        return " | ".join(_lines(findings, Level.WARN)) or "healthy"


def _lines(findings: Sequence[Finding], level: Level) -> list[str]:
    return [f"{f.check}: {f.found} -> {f.remedy}" for f in findings if f.level is level]


def main() -> int:
    """Run the node."""
    return run(DoctorNode)
