# SPDX-License-Identifier: Apache-2.0
"""The compiled network traces without breaks and gives the plain answer; a failure says what to change.

The backend is the compiler's own without code generation: the trace is what ours can break.
"""

import pytest
import small_networks
import torch

from imagewam_ros.core.contract import Denoising
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.compiled import Compiled, compile_network
from imagewam_ros.model.protocol import Context
from imagewam_ros.model.sampler import Sampler, SamplerConfig

HORIZON = 6


@pytest.mark.slow
@pytest.mark.parametrize("backbone", small_networks.BACKBONES)
def test_actions_are_those_of_the_plain_network(backbone):
    network = small_networks.network(backbone).requires_grad_(False)
    plan, c = network.plan(Denoising(steps=2)), network.config
    generator = torch.Generator().manual_seed(0)
    shapes = ((1, c.channels, 4, 8), (1, c.proprio_dim), (1, 5, c.text_dim), (1, HORIZON, c.action_dim))
    latents, proprio, tokens, noise = (torch.randn(shape, generator=generator) for shape in shapes)

    def answer(cache=None):
        cache = network.prefill(latents, Context(tokens), proprio, HORIZON, plan, cache)
        return network.denoise(noise, cache, plan), cache

    with torch.inference_mode():
        wanted, cache = answer()
        compile_network(network, backend="aot_eager")
        found, again = answer(cache)
    assert torch.allclose(found, wanted, atol=1e-5) and again is cache


def test_a_failure_says_what_to_change():
    def branching(x):
        return x + 1 if x.sum() > 0 else x

    with pytest.raises(ConfigError, match=r"torch.compile failed \(.*\); set compile to false"):
        Compiled(branching, backend="aot_eager")(torch.ones(2))


def test_it_is_refused_where_it_cannot_be_had(small_model):
    with pytest.raises(ConfigError, match="compile needs a CUDA device, found cpu; set compile to false"):
        Sampler(small_model.network, Denoising(), HORIZON, SamplerConfig(compile=True))
    with pytest.raises(ConfigError, match="compile is not there for guided chunking; use frozen"):
        SamplerConfig(compile=True, chunking="guided")
