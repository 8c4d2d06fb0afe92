# SPDX-License-Identifier: Apache-2.0
"""Skip what this machine cannot run."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not cuda_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def cuda_available() -> bool:
    import torch

    return torch.cuda.is_available()
