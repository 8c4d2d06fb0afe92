# SPDX-License-Identifier: Apache-2.0
"""What a command says without an optional package, without memory, or when its processes end early."""

import argparse
import os
import sys
import time

import pytest
import torch
from torch import nn

from imagewam_ros import bench_recorder, bench_step
from imagewam_ros.bench_reference import step
from imagewam_ros.core.errors import ConfigError, GraphError
from imagewam_ros.model import hub
from imagewam_ros.processor_time import busy_s
from imagewam_ros.training import lora


def test_hub_id_without_huggingface_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match="a Hub id needs huggingface_hub; pip install huggingface_hub"):
        hub.download("owner/name@" + "0" * 40)


@pytest.mark.parametrize("revision", ["", "@main", "@" + "0" * 39, "@" + "0" * 41, "@" + "A" * 40])
def test_unpinned_hub_id_is_refused_before_any_package(monkeypatch, revision):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match="names no pinned revision; add @ and the 40 hex digits"):
        hub.download("owner/name" + revision)


def test_adapters_without_peft_leave_the_network_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    network = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(ConfigError, match="LoRA needs peft: pip install peft"):
        lora.inject(network, rank=1, alpha=1.0)
    assert all(weight.requires_grad for weight in network.parameters())


def exhausted(*_, **__):
    raise torch.OutOfMemoryError("no room")


@pytest.mark.parametrize(
    ("owner", "name", "message"),
    [
        (torch, "linspace", r"out of memory on cpu \(no room\); try --preset sixth or --dtype bfloat16"),
        (nn.Module, "to_empty", r"preset 'tiny' does not fit into memory \(no room\); try --preset sixth"),
    ],
)
def test_lack_of_memory_names_a_smaller_preset(monkeypatch, owner, name, message):
    monkeypatch.setattr(owner, name, exhausted)
    parser = argparse.ArgumentParser()
    bench_step.add_arguments(parser)
    with pytest.raises(ConfigError, match=message):
        step.measure(parser.parse_args(["--preset", "tiny", "--repeats", "1"]), torch.device("cpu"), torch.float32)


def test_recorder_bench_whose_processes_end_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    parser = argparse.ArgumentParser()
    bench_recorder.add_arguments(parser)
    with pytest.raises(GraphError, match="the measurement did not finish"):
        bench_recorder.measure(parser.parse_args(["--seconds", "1"]), tmp_path)


def test_busy_time_of_this_process_is_its_processor_time():
    assert busy_s(os.getpid()) == pytest.approx(time.process_time(), abs=0.2)
