# SPDX-License-Identifier: Apache-2.0
"""What others published, from config/published_results.yaml: every figure with its source, as a table."""

from dataclasses import dataclass
from pathlib import Path

from imagewam_ros.core.config import build, read_yaml
from imagewam_ros.core.errors import ConfigError, unknown_name
from imagewam_ros.core.paths import share_dir


@dataclass(frozen=True)
class Reference:
    """Where figures were read."""

    name: str
    text: str
    url: str


@dataclass(frozen=True)
class Result:
    """A success rate in per cent; quoted says that it stands in somebody else's table."""

    policy: str
    benchmark: str
    rate: float
    source: str
    quoted: bool = False
    note: str = ""


@dataclass(frozen=True)
class Published:
    """All results; benchmarks maps their short names to what they mean."""

    benchmarks: dict[str, str]
    sources: tuple[Reference, ...]
    results: tuple[Result, ...]

    def __post_init__(self) -> None:
        known = [source.name for source in self.sources]
        for result in self.results:
            where = f"{result.policy} on {result.benchmark}"
            if result.source not in known:
                raise ConfigError(f"{where}: {unknown_name('source', result.source, known)}")
            if result.benchmark not in self.benchmarks:
                raise ConfigError(unknown_name("benchmark", result.benchmark, self.benchmarks))
            if not 0 <= result.rate <= 100:
                raise ConfigError(f"{where}: a rate lies between 0 and 100 %, found {result.rate}")

    @property
    def policies(self) -> tuple[str, ...]:
        """Policies in the order of their first result."""
        return tuple(dict.fromkeys(result.policy for result in self.results))

    def cell(self, policy: str, benchmark: str) -> tuple[Result, ...]:
        """Results of one policy on one benchmark."""
        return tuple(r for r in self.results if (r.policy, r.benchmark) == (policy, benchmark))


def load_published(path: Path | None = None) -> Published:
    """Read the file of the package, or another. Raises ConfigError naming what is wrong."""
    path = path or share_dir() / "config" / "published_results.yaml"
    return build(Published, read_yaml(path), str(path))


def rows(published: Published) -> list[list[str]]:
    """Return the table: a head, then one row per policy; figures in per cent with the number of their source.

    A star marks what was read in somebody else's table.
    """
    table = [["policy", *published.benchmarks]]
    for policy in published.policies:
        cells = [", ".join(_figure(published, r) for r in published.cell(policy, b)) for b in published.benchmarks]
        table.append([policy, *(cell or "-" for cell in cells)])
    return table


def legend(published: Published) -> list[str]:
    """Return one line per benchmark, source and note of the table."""
    lines = [f"{name}: {text}" for name, text in published.benchmarks.items()]
    lines += [f"[{number}] {source.text}, {source.url}" for number, source in enumerate(published.sources, 1)]
    return lines + [f"{r.policy}, {r.benchmark}: {r.note}" for r in published.results if r.note]


def markdown(published: Published) -> str:
    """Return table and legend for the documentation."""
    head, *body = rows(published)
    table = [head, ["---"] * len(head), *body]
    return "\n".join([*(f"| {' | '.join(row)} |" for row in table), "", *(f"- {line}" for line in legend(published))])


def _figure(published: Published, result: Result) -> str:
    number = [source.name for source in published.sources].index(result.source) + 1
    return f"{result.rate:g}{'*' if result.quoted else ''} [{number}]"
