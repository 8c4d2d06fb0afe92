# SPDX-License-Identifier: Apache-2.0
"""Published figures: each has a source, and the documentation shows the file's."""

from pathlib import Path

import pytest
import yaml

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.evaluation.published import legend, load_published, markdown, rows

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "config" / "published_results.yaml"


def test_every_figure_is_in_the_table_with_its_source() -> None:
    published = load_published()
    heads, *table = rows(published)
    cells = {(row[0], head): cell for row in table for head, cell in zip(heads, row, strict=True)}
    for result in published.results:
        assert f"{result.rate:g}" in cells[result.policy, result.benchmark]
        assert ("*" in cells[result.policy, result.benchmark]) == result.quoted
    assert {"pi0", "pi0.5", "Fast-WAM", "LingBot-VA", "ImageWAM FLUX.2 4B"} <= set(published.policies)
    assert all(source.url in "".join(legend(published)) for source in published.sources)


def test_the_documentation_shows_the_file() -> None:
    assert markdown(load_published()) in (ROOT / "docs" / "evaluation.md").read_text()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"source": "lingbot_raedme"}, "unknown source 'lingbot_raedme'; did you mean 'lingbot_readme'"),
        ({"benchmark": "libro"}, "unknown benchmark 'libro'; did you mean 'libero'"),
        ({"rate": 132.0}, "a rate lies between 0 and 100 %, found 132.0"),
    ],
)
def test_a_figure_without_source_is_refused(tmp_path, change, reason) -> None:
    data = yaml.safe_load(FILE.read_text())
    data["results"][0].update(change)
    path = tmp_path / "results.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError, match=reason):
        load_published(path)
