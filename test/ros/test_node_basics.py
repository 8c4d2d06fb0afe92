# SPDX-License-Identifier: Apache-2.0
"""Parameters, lifecycle, diagnostics, filters and the main loop that every node shares."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from dataclasses import dataclass, field

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.exceptions import ParameterNotDeclaredException
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_msgs.msg import String

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.graph import Death, Process
from imagewam_ros.nodes import message_filters, parameters
from imagewam_ros.nodes.diagnostics import Meter
from imagewam_ros.nodes.lifecycle import ManagedNode
from imagewam_ros.supervisor import environment


@dataclass(frozen=True)
class Inner:
    gain: float = 2.0


@dataclass(frozen=True)
class Config:
    rate_hz: float = 10.0
    names: tuple[str, ...] = ("a", "b")
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.rate_hz <= 0:
            raise ConfigError(f"rate_hz must be positive, found {self.rate_hz}")


def node(**given: object) -> Node:
    overrides = [Parameter(name.replace("__", "."), value=value) for name, value in given.items()]
    return Node("sample", parameter_overrides=overrides, automatically_declare_parameters_from_overrides=True)


@pytest.mark.usefixtures("ros")
class TestParameters:
    def test_defaults_and_given_values(self) -> None:
        sample = node(rate_hz=50, inner__gain=3.0, names=["c"])
        assert parameters.declare(sample, Config) == Config(50.0, ("c",), Inner(3.0))
        assert sample.get_parameter("inner.gain").value == 3.0
        assert sample.get_parameter("names").value == ["c"]

    def test_unknown_name_is_refused_with_the_nearest(self) -> None:
        with pytest.raises(ConfigError, match="/sample: unknown parameter 'rate_hs'; did you mean 'rate_hz'"):
            parameters.declare(node(rate_hs=1.0), Config)

    def test_wrong_type_and_value_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="rate_hz: expected float, found 'fast'"):
            parameters.declare(node(rate_hz="fast"), Config)
        with pytest.raises(ConfigError, match=r"rate_hz must be positive, found -1\.0"):
            parameters.declare(node(rate_hz=-1.0), Config)

    def test_read_only_unless_named(self) -> None:
        sample, seen = node(), []
        config = parameters.declare(sample, Config, changeable=("rate_hz",))
        end = parameters.on_change(sample, config, seen.append)
        names, rate, bad = (
            sample.set_parameters([Parameter(name, value=value)])[0]
            for name, value in (("names", ["z"]), ("rate_hz", 20.0), ("rate_hz", -1.0))
        )
        assert not names.successful and "read-only" in names.reason
        assert rate.successful and seen == [Config(rate_hz=20.0)]
        assert not bad.successful and "must be positive" in bad.reason
        with pytest.raises(ParameterNotDeclaredException):
            sample.set_parameters([Parameter("rate", value=1.0)])
        assert sample.get_parameter("rate_hz").value == 20.0
        end()
        assert sample.set_parameters([Parameter("rate_hz", value=30.0)])[0].successful and len(seen) == 1

    def test_configuring_again_reads_the_same_values(self) -> None:
        sample = node(rate_hz=50)
        assert parameters.declare(sample, Config) == parameters.declare(sample, Config)


class Sample(ManagedNode):
    """Does what it is told, and remembers what it was asked."""

    def __init__(self, *failing: str) -> None:
        super().__init__("sample")
        self.failing, self.calls = failing, []

    def _step(self, name: str) -> None:
        self.calls.append(name)
        if name in self.failing:
            raise ConfigError(f"{name} went wrong")

    def setup(self) -> None:
        self._step("setup")

    def start(self) -> None:
        self._step("start")

    def stop(self, reason: str) -> None:
        self._step("stop")

    def teardown(self) -> None:
        self._step("teardown")


@pytest.mark.usefixtures("ros")
class TestLifecycle:
    def test_in_order(self) -> None:
        sample = Sample()
        for trigger in (sample.trigger_configure, sample.trigger_activate, sample.trigger_deactivate):
            assert trigger() == TransitionCallbackReturn.SUCCESS
        assert sample.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
        assert sample.calls == ["setup", "start", "stop", "teardown"]

    def test_failed_setup_leaves_nothing_and_may_be_tried_again(self) -> None:
        sample = Sample("setup")
        assert sample.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert sample.calls == ["setup", "teardown"]
        sample.failing = ()
        assert sample.trigger_configure() == TransitionCallbackReturn.SUCCESS

    def test_failed_start_stops(self) -> None:
        sample = Sample("start")
        sample.trigger_configure()
        assert sample.trigger_activate() == TransitionCallbackReturn.FAILURE
        assert sample.calls[-1] == "stop" and not sample.is_active

    def test_failed_stop_tears_down(self) -> None:
        sample = Sample("stop")
        sample.trigger_configure()
        sample.trigger_activate()
        assert sample.trigger_deactivate() == TransitionCallbackReturn.ERROR
        assert sample.calls[-2:] == ["stop", "teardown"] and not sample.is_active

    def test_shutdown_stops_first(self) -> None:
        sample = Sample()
        sample.trigger_configure()
        sample.trigger_activate()
        sample.trigger_shutdown()
        assert sample.calls[-2:] == ["stop", "teardown"]

    def test_bad_input_is_reported_and_dropped(self) -> None:
        sample = Sample("callback")
        sample.guarded(sample._step)("callback")
        assert sample.calls == ["callback"]


def test_reason_reaches_diagnostics(domain, ros, probe) -> None:
    received = probe.collect(DiagnosticArray, "/diagnostics")
    sample = Sample("setup")
    assert probe.until(lambda: sample.count_subscribers("/diagnostics"))
    sample.trigger_configure()
    assert probe.until(lambda: any("cannot configure: setup went wrong" in m.status[0].message for m in received))
    assert received[-1].status[0].name == "/sample"


def test_meter_reports_rates_and_percentiles() -> None:
    meter = Meter()
    meter.report(1_000_000_000)
    for value in range(10):
        meter.count("chunk")
        meter.sample("inference_s", value / 10)
    report = meter.report(3_000_000_000)
    assert report["chunk_rate_hz"] == "5.00" and report["chunk_total"] == "10"
    assert report["inference_s"].startswith("p50 0.450000") and report["inference_s"].endswith("max 0.900000")
    assert meter.report(4_000_000_000)["chunk_rate_hz"] == "0.00"


def test_meter_reports_while_another_thread_adds_names() -> None:
    meter = Meter()

    def add() -> None:
        for number in range(2000):
            meter.sample(f"stage_{number}", 0.1)
            meter.bucket(f"stage_{number}", 0.1)

    adding, interval_s = threading.Thread(target=add), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # the threads take turns as often as they can
    try:
        adding.start()
        while adding.is_alive():
            meter.report(1)
    finally:
        sys.setswitchinterval(interval_s)
        adding.join()
    assert len(meter.report(1)) == 4000


def test_histogram_counts_every_duration_once() -> None:
    meter = Meter()
    for value_s in (-1.0, 0.00009, 0.0003, 0.0003, 7.0):
        meter.bucket("lateness", value_s)
    histogram = meter.report(1)["lateness_histogram"]
    assert histogram.startswith("<=0.1ms:2 <=0.2ms:0 <=0.5ms:2 ") and histogram.endswith("<=infms:1")


def test_stand_in_filter_calls_with_message_then_own_arguments() -> None:
    source, seen = message_filters.StandInSimpleFilter(), []
    first = source.registerCallback(lambda *args: seen.append(args), "camera")
    source.registerCallback(lambda *args: seen.append(args))
    source.signalMessage(1, 2)
    assert seen == [(1, 2, "camera"), (1, 2)]
    source.unregisterCallback(first)
    source.signalMessage(3)
    assert seen[2:] == [(3,)]


def test_stand_in_subscriber_is_the_source_of_a_chain(probe) -> None:
    seen: list[tuple[str, str]] = []
    source = message_filters.StandInSubscriber(probe.node, String, "words", qos_profile=5)
    source.registerCallback(lambda message, tag: seen.append((message.data, tag)), "tag")
    assert source.getTopic() == "words"
    publisher = probe.node.create_publisher(String, "words", 5)
    assert probe.until(lambda: publisher.get_subscription_count() == 1)
    publisher.publish(String(data="hello"))
    assert probe.until(lambda: seen == [("hello", "tag")])


SLEEPER = textwrap.dedent("""
    # SPDX-License-Identifier: Apache-2.0
    import sys
    from imagewam_ros.core.errors import ConfigError
    from imagewam_ros.nodes.lifecycle import ManagedNode
    from imagewam_ros.nodes.spin import run

    class Sleeper(ManagedNode):
        def __init__(self):
            super().__init__("sleeper")
            if self.has_parameter("wrong"):
                raise ConfigError("wrong must not be given")

        def stop(self, reason):
            print("stopped by", reason)

    def main():
        return run(Sleeper)
    """)


@pytest.fixture
def sleeper(tmp_path, monkeypatch) -> str:
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "sleeper"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_an_active_node_and_exit_0(spawn, probe, sleeper, number) -> None:
    process = spawn(sleeper)
    assert probe.change("sleeper", "configure", "activate")
    process.process.send_signal(number)
    assert process.stop(number) == 0, process.text()  # a second one, as launch and terminal send
    assert f"stopped by {number.name}" in process.text()


def test_refused_configuration_exits_2_with_the_reason(spawn, sleeper) -> None:
    process = spawn(sleeper, wrong=1)
    process.process.wait(60)
    assert process.process.returncode == 2
    assert "error: wrong must not be given" in process.text()


LISTENS = """
import os, rclpy
rclpy.init()
node = rclpy.create_node("lonely")
descriptors = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
own = {os.readlink(path) for path in descriptors if os.path.exists(path)}
for line in open("/proc/self/net/udp").read().splitlines()[1:]:
    local, inode = line.split()[1], line.split()[9]
    if f"socket:[{inode}]" in own:
        print(*local.split(":"))
"""


@pytest.mark.skipif(os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp") != "rmw_fastrtps_cpp", reason="Fast DDS")
@pytest.mark.parametrize("publishes", [False, True])
def test_nobody_elsewhere_reaches_a_process_that_we_start(domain: int, publishes: bool) -> None:
    """RTPS: a domain's first 45 participants listen on the 100 ports from 7400 + 250 times its number on."""
    env = environment(Process("n", "x", Death.ENDS_GRAPH, publishes_images=publishes), os.environ)
    told = subprocess.run([sys.executable, "-c", LISTENS], env=env, capture_output=True, text=True, check=True).stdout
    bound = [(address, int(port, 16)) for address, port in map(str.split, told.splitlines())]
    listening = {address for address, port in bound if 0 <= port - 7400 - 250 * domain < 100}
    assert listening == {"0100007F"}, f"127.0.0.1 alone; found {told}"
