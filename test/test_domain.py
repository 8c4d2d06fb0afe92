# SPDX-License-Identifier: Apache-2.0
import os
from contextlib import ExitStack

import pytest

from imagewam_ros.core.errors import ConfigError, GraphError
from imagewam_ros.domain import DOMAINS, private_domain, use_domain


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "0")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_a_domain_is_for_this_process_and_its_children() -> None:
    use_domain(7)
    assert os.environ["ROS_DOMAIN_ID"] == "7"


def test_a_domain_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="ROS domain must be 0 to 101, found 200"):
        use_domain(200)
    assert os.environ["ROS_DOMAIN_ID"] == "0"


def test_two_never_share_a_private_domain_and_each_is_given_back() -> None:
    with ExitStack() as held:
        taken = [held.enter_context(private_domain()) for _ in DOMAINS[1:]]
        assert sorted(taken) == list(DOMAINS[1:])
        with pytest.raises(GraphError, match="all 101 ROS domains are taken .* choose one with --domain"):
            held.enter_context(private_domain())
    with private_domain() as domain:
        assert domain in DOMAINS[1:]
