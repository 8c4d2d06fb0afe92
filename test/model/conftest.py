# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLFlux2

from imagewam_ros.core.contract import Contract, Mosaic, Tile
from imagewam_ros.core.stats import Statistics
from imagewam_ros.model import factory
from imagewam_ros.model.autoencoder import Flux2Codec
from imagewam_ros.model.flux2 import Flux2Config
from imagewam_ros.model.reference_flux2 import Flux2Reference
from imagewam_ros.model.text import TextSpec, small_text
from imagewam_ros.model.wam import ImageWam

DATA = Path(__file__).parents[1] / "data"

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data() -> Path:
    return DATA


@pytest.fixture(scope="session")
def flux2() -> Flux2Reference:
    """The small FLUX.2 model of the reference data; tests must not change it."""
    return Flux2Reference(DATA / "flux2_tiny")


JOINTS = tuple(f"joint_{i}" for i in range(14))


@pytest.fixture(scope="session")
def small_model() -> ImageWam:
    """A random FLUX.2 ImageWAM for a 32x64 mosaic, with small encoders of the real classes."""
    torch.manual_seed(0)
    text = small_text(["lift the tray with both arms"], TextSpec((1, 2)), hidden=12, max_length=16)
    autoencoder = AutoencoderKLFlux2(
        block_out_channels=(4, 8, 8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=4
    )
    config = Flux2Config(
        hidden=32, heads=2, axes=(4, 4, 4, 4), double=1, single=2, channels=16, text_dim=24, action_hidden=16
    )
    spec = factory.ModelSpec("flux2", config, TextSpec((1, 2)))
    network = factory.build_network(spec)
    return ImageWam(network, Flux2Codec(autoencoder), text, spec, "do: {task}", 6)


@pytest.fixture(scope="session")
def contract() -> Contract:
    mosaic = Mosaic(32, 64, (Tile("head", 0, 0, 32, 64),))
    return Contract(
        variant="flux2",
        joint_names=JOINTS,
        joint_units=("rad",) * 14,
        relative=(False,) * 14,
        mosaic=mosaic,
        period_ns=50_000_000,
        horizon=6,
        first_row_offset_periods=1.0,
        text_length=16,
        prompt="do: {task}",
    )


@pytest.fixture(scope="session")
def statistics() -> dict[str, Statistics]:
    rng = np.random.default_rng(0)
    return {name: Statistics.of(rng.normal(size=(50, 14))) for name in ("state", "action")}
