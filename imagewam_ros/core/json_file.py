# SPDX-License-Identifier: Apache-2.0
"""JSON files that are never seen half written."""

import json
from pathlib import Path
from typing import Any


def write_json(path: Path, data: Any) -> None:
    """Write JSON; the file appears under its name when it is whole."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf8")
    part.replace(path)
