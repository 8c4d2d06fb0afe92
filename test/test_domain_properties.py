# SPDX-License-Identifier: Apache-2.0
"""Private domains when few are left, in a folder of the test's own."""

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from imagewam_ros.core.errors import ConfigError, GraphError
from imagewam_ros.domain import DOMAINS, private_domain, use_domain


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_every_domain_but_0_is_given_once_and_then_there_are_none(locks: Path) -> None:
    with ExitStack() as held:
        given = [held.enter_context(private_domain()) for _ in DOMAINS[1:]]
        assert sorted(given) == list(DOMAINS[1:])
        with pytest.raises(GraphError, match="all 101 ROS domains are taken"), private_domain():
            pass
    with private_domain() as again:
        assert again in given


def test_the_only_free_domain_is_found_and_freed_by_an_error_too(locks: Path) -> None:
    with ExitStack() as held:
        for _ in DOMAINS[2:]:
            held.enter_context(private_domain())
        with pytest.raises(KeyError), private_domain() as first:
            raise KeyError
        with private_domain() as second:
            assert first == second


@pytest.mark.parametrize("domain", [0, 1, 101])
def test_bounds_belong_to_the_range(domain: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "7")
    use_domain(domain)
    assert os.environ["ROS_DOMAIN_ID"] == str(domain)


@pytest.mark.parametrize("domain", [-1, 102, 232])
def test_a_refused_domain_leaves_the_old_one(domain: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "7")
    with pytest.raises(ConfigError, match=f"found {domain}"):
        use_domain(domain)
    assert os.environ["ROS_DOMAIN_ID"] == "7"
