# SPDX-License-Identifier: Apache-2.0
"""`imagewam evaluate --real`: a session of judged trials from its options to its report."""

import argparse
import json

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.domain import use_domain
from imagewam_ros.evaluation.provenance import provenance
from imagewam_ros.evaluation.real import Book, RealConfig, result
from imagewam_ros.evaluation.report import write_report


def run_session(arguments: argparse.Namespace) -> int:
    """Go through the trials that are left, then report. Returns 0 when all were judged."""
    if arguments.out is None:
        raise ConfigError("say where trials, pictures and report go: --out FOLDER")
    policies = (arguments.policy, *([arguments.against] if arguments.against else []))
    config = RealConfig(
        policies,
        arguments.instruction,
        arguments.out,
        RealConfig.trials if arguments.episodes is None else arguments.episodes,
        arguments.timeout,
        arguments.seed,
        arguments.robot,
        arguments.device,
        arguments.reference,
        arguments.namespace,
        arguments.use_sim_time,
    )
    book = Book(config)
    from imagewam_ros.nodes import real_trials  # ROS is needed from here on

    if arguments.domain is not None:
        use_domain(arguments.domain)
    code = real_trials.main(book) if book.next is not None else 0
    if not book.trials:
        print("no trial was judged")
        return code or 1
    line = result(book)
    page = write_report(config.out, [line], {config.instruction: {"real": book.trials}}, {}, provenance())
    for name, row in line["rows"].items():
        low, high = (100 * bound for bound in row["interval"])
        print(f"{name}: {row['successes']}/{row['episodes']}, 95 % interval {low:.1f} to {high:.1f} %")
    print(f"wrote {page}")
    if arguments.json:
        print(json.dumps(line))
    return code or int(book.next is not None)
