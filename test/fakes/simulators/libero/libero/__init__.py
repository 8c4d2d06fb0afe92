# SPDX-License-Identifier: Apache-2.0
"""Paths."""

from pathlib import Path


def get_libero_path(kind: str) -> str:
    return str(Path(__file__).parent / kind)
