# SPDX-License-Identifier: Apache-2.0
"""The measured reference is the authors' schedule by its counts, and ours gives the same answer for less."""

import argparse
import json

import pytest
import torch

from imagewam_ros import bench_step
from imagewam_ros.bench_reference import costs, flux2
from imagewam_ros.bench_reference.sizes import LAYOUTS, SIZES, build_weights, find_layout
from imagewam_ros.bench_reference.step import SCHEDULES, Case
from imagewam_ros.bench_reference.stopwatch import Stopwatch, quantiles
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.preprocess import mosaic_pixels

CPU = torch.device("cpu")


def case(layout="robotwin", denoiser="sequential", backbone="flux2"):
    torch.set_num_threads(1)
    schedule = SCHEDULES[backbone]
    weights = schedule.build("tiny", LAYOUTS[layout], CPU, torch.float32)
    with torch.no_grad():
        return Case(schedule, weights, LAYOUTS[layout], CPU, torch.float32, denoiser)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("backbone", SCHEDULES)
def test_both_schedules_give_the_same_actions(layout, backbone):
    made = case(layout, backbone=backbone)
    pixels = mosaic_pixels(made.images, made.layout.mosaic)
    with torch.inference_mode():
        ours, theirs, cached = (
            make(Stopwatch(CPU), pixels) for make in (made.ours, made.reference, made.reference_cached)
        )
    assert theirs.shape == (1, 16, made.layout.actions) and torch.equal(theirs, cached)
    assert (ours - theirs).abs().max() <= 1e-4


@pytest.mark.parametrize("backbone", SCHEDULES)
def test_picard_gives_the_same_actions(backbone):
    made, swept = (case(denoiser=each, backbone=backbone) for each in ("sequential", "picard"))
    pixels = mosaic_pixels(made.images, made.layout.mosaic)
    with torch.inference_mode():
        assert (made.ours(Stopwatch(CPU), pixels) - swept.ours(Stopwatch(CPU), pixels)).abs().max() <= 1e-3


@pytest.mark.parametrize("backbone", SCHEDULES)
def test_everything_that_goes_in_moves_the_actions(backbone):
    """Equality of two schedules proves something only then."""
    made = case(backbone=backbone)
    pixels = mosaic_pixels(made.images, made.layout.mosaic)
    with torch.inference_mode():
        first = made.ours(Stopwatch(CPU), pixels).clone()
        assert (made.ours(Stopwatch(CPU), -pixels) - first).abs().max() > 0.02
        proprio, made.proprio = made.proprio, -made.proprio
        assert (made.ours(Stopwatch(CPU), pixels) - first).abs().max() > 0.005
        made.proprio = proprio
        if made.text is None:
            made.ids[:, 0] += 1
        else:
            made.text = made.text._replace(tokens=made.text.tokens.flip(1))
        assert (made.ours(Stopwatch(CPU), pixels) - first).abs().max() > 0.005


def test_steady_state_keeps_its_addresses_and_its_answer():
    """What a CUDA graph needs, tried on the CPU: the same memory and bit-identical actions 100 times."""
    made = case()
    with torch.inference_mode():
        first = made.ours(Stopwatch(CPU))
        cache = made.cache
        addresses = cache.keys.data_ptr(), cache.values.data_ptr()
        for _ in range(99):
            assert torch.equal(made.ours(Stopwatch(CPU)), first)
            assert made.cache is cache and (cache.keys.data_ptr(), cache.values.data_ptr()) == addresses


def test_resized_pixels_are_within_one_step_of_pil():
    made = case("libero")
    theirs = flux2.pil_pixels(made.images, made.layout.mosaic)
    assert (mosaic_pixels(made.images, made.layout.mosaic) - theirs).abs().max() * 127.5 <= 1.01


def test_command_prints_a_table_and_one_line(capsys):
    parser = argparse.ArgumentParser()
    bench_step.add_arguments(parser)
    words = ["--preset", "tiny", "--reference", "--chunking", "--repeats", "1", "--json"]
    assert bench_step.run(parser.parse_args(words)) == 0
    lines = capsys.readouterr().out.splitlines()
    result = json.loads(lines[-1])
    assert {"ratio_reference", "ratio_reference_cached", "max_abs_diff", "preset", "layout"} <= set(result)
    assert {"ratio_frozen_step", "ratio_guided_loop", "threads", "dtype", "repeats"} <= set(result) and result[
        "max_abs_diff"
    ] <= 1e-4
    assert any(line.startswith("reference, text cached") for line in lines)


def test_command_measures_other_backbones(capsys):
    parser = argparse.ArgumentParser()
    bench_step.add_arguments(parser)
    words = ["--backbone", "ovis_u1", "--preset", "tiny", "--reference", "--repeats", "1", "--json"]
    assert bench_step.run(parser.parse_args(words)) == 0
    out = capsys.readouterr().out
    assert "with its text cached impossible (it sees the image)" in out
    result = json.loads(out.splitlines()[-1])
    assert result["backbone"] == "ovis_u1" and result["ratio_reference_cached"] is None
    with pytest.raises(ConfigError, match="preset '4b' is FLUX.2's; omnigen2 has --preset tiny or sixth"):
        bench_step.run(parser.parse_args(["--backbone", "omnigen2", "--preset", "4b"]))


def test_wrong_words_are_refused():
    parser = argparse.ArgumentParser()
    bench_step.add_arguments(parser)
    with pytest.raises(ConfigError, match="--repeats and --threads must be positive"):
        bench_step.run(parser.parse_args(["--repeats", "0"]))
    with pytest.raises(ConfigError, match="unknown layout 'robotwim'; did you mean 'robotwin'"):
        find_layout("robotwim")
    with pytest.raises(ConfigError, match="unknown preset 'sixt'"):
        build_weights("sixt", LAYOUTS["robotwin"])


def test_command_knows_the_presets_and_layouts():
    assert tuple(SIZES) == bench_step.PRESETS and tuple(LAYOUTS) == bench_step.LAYOUTS
    assert {name: tuple(SCHEDULES[name].SIZES) for name in ("omnigen2", "ovis_u1")} == {
        name: bench_step.PRESETS_OF[name] for name in ("omnigen2", "ovis_u1")
    }
    assert tuple(SCHEDULES) == tuple(bench_step.PRESETS_OF)


def test_quantiles_are_measured_values():
    assert quantiles([3.0, 1.0, 2.0]) == {"p50": 2.0, "p95": 3.0, "p99": 3.0}


def test_roofline_is_known_for_known_devices():
    phases = {"denoise": costs.Cost(flops=79 * 10**12, weight_bytes=43 * 10**9)}
    assert costs.roofline_ms(phases, "NVIDIA H200") == pytest.approx(100.0)
    assert costs.roofline_ms(phases, "abacus") is None
