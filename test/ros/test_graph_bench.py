# SPDX-License-Identifier: Apache-2.0
"""The graph's benchmark runs the real nodes, accounts for every frame, and splits the whole way without a gap."""

import json

import pytest

from imagewam_ros import bench_graph, cli
from imagewam_ros.core.errors import ConfigError, GraphError
from imagewam_ros.nodes import chunk_trace, executor_report, graph_load_node
from imagewam_ros.nodes.graph_load_node import GraphLoadConfig
from imagewam_ros.nodes.stub_policy_node import StubPolicyConfig

SMALL = ("--width", "64", "--height", "48", "--camera-hz", "10", "--joint-hz", "50")


@pytest.mark.slow
def test_a_small_load_goes_all_the_way(domain: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "graph", "--seconds", "3", *SMALL, "--model-ms", "40", "--json"]) == 0
    out = capsys.readouterr().out.splitlines()
    result = json.loads(out[-1])
    ms = result["ms"]
    assert set(ms) == {key.removesuffix("_s") for key in (*bench_graph.TOTALS, *STAGES)}
    assert result["images"] == 3 * result["frames"] >= 3 * 20
    assert result["chunks"] > 5 and result["chunks_dropped"] <= 1, "the last one may be on its way"
    assert result["chunks_refused"] == 0
    assert 40 <= ms["model"]["p50"] < ms["camera_to_chunk"]["p50"] < ms["camera_to_command"]["max"]
    assert 0 < ms["overhead"]["p50"] < ms["camera_to_chunk"]["max"] - 40 + ms["publish"]["max"]
    assert set(result["cpu_share"]) == {"load", "policy", "executor", "bringup"}
    assert all(
        text in "\n".join(out) for text in ("images on their way", "curve, limits, first command", "of one core")
    )


STAGES = (*chunk_trace.STAGES, *executor_report.ARRIVAL_STAGES)


def test_the_table_knows_the_nodes_stages() -> None:
    assert (*bench_graph.CAMERA_STAGES, *bench_graph.COMMAND_STAGES) == STAGES
    assert (bench_graph.BEGIN, bench_graph.END) == (graph_load_node.BEGIN, graph_load_node.END)


def test_percentiles_are_read_as_nodes_write_them() -> None:
    text = "p50 0.001500 p95 0.002000 p99 0.003000 max 0.004000"
    assert bench_graph._ms(text) == {"p50": 1.5, "p95": 2.0, "p99": 3.0, "max": 4.0}


def test_a_rate_needs_chunks_and_counts_the_gaps_between_them() -> None:
    assert bench_graph._rate_hz([0, 400_000_000, 800_000_000]) == pytest.approx(2.5)
    with pytest.raises(GraphError, match="2 chunks came, 3 at least make a rate; give more --seconds"):
        bench_graph._rate_hz([0, 1])


@pytest.mark.parametrize("option", ["--seconds", "--width", "--camera-hz", "--joint-hz", "--chunk-ms", "--replan-ms"])
def test_nothing_to_measure_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "graph", option, "0"]) == 2
    assert f"{option} must be positive, found 0" in capsys.readouterr().err


def test_wrong_parameters_are_refused() -> None:
    with pytest.raises(ConfigError, match="model_s must not be negative, found -1"):
        StubPolicyConfig(model_s=-1)
    with pytest.raises(ConfigError, match="seconds and joint_hz must be positive"):
        GraphLoadConfig(seconds=0)


@pytest.mark.slow
def test_a_graph_that_does_not_come_up_is_told_with_its_last_words(domain: int, capsys) -> None:
    assert cli.main(["bench", "graph", "--replan-ms", "5", *SMALL]) == 2
    said = capsys.readouterr().err
    assert "the measurement did not finish:" in said
    assert "node 'policy' cannot configure: /policy: replan_period_s must be 0.01 to 10, found 0.005" in said


@pytest.mark.parametrize("option", ["--model-ms", "--chunk-ms"])
def test_a_real_model_takes_its_own_time(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "graph", "--model", "tiny", option, "5"]) == 2
    assert f"{option} is the stub's; leave it away with --model tiny" in capsys.readouterr().err
