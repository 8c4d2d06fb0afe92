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
FEW = {"flux2": {"single": 1}, "omnigen2": {"layers": 1}, "ovis_u1": {"single": 1}}
"""One block of each kind: a second one is traced as the first."""


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch._dynamo.reset()


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


@pytest.mark.parametrize("backbone", small_networks.BACKBONES)
def test_any_length_of_text_gives_the_plain_actions_from_a_few_graphs(backbone):
    """Two chunks of each length, as after a change of the instruction: the cache is outgrown, then fits."""
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph.forward

    plain, fused = (small_networks.network(backbone, **FEW[backbone]).requires_grad_(False) for _ in range(2))
    compile_network(fused, backend=counting)
    c, plan = plain.config, plain.plan(Denoising(steps=2))
    shapes, caches, made = ((1, c.channels, 4, 8), (1, c.proprio_dim), (1, HORIZON, c.action_dim)), [None, None], []
    with torch.inference_mode():
        for seed, length in enumerate([5, 5, 7, 7, 9, 9, 4, 4, 11, 11, 6, 6, 5, 5]):
            generator = torch.Generator().manual_seed(seed)
            latents, proprio, noise, tokens = (
                torch.randn(shape, generator=generator) for shape in (*shapes, (1, length, c.text_dim))
            )
            for i, network in enumerate((plain, fused)):
                caches[i] = network.prefill(latents, Context(tokens), proprio, HORIZON, plan, caches[i])
            wanted, found = (n.denoise(noise, cache, plan) for n, cache in zip((plain, fused), caches, strict=True))
            assert torch.allclose(found, wanted, atol=1e-5)
            made.append(len(graphs))
    assert made[5] == made[-1] <= 7, "from the third length on none is made"


def test_too_many_graphs_are_a_failure_too():
    with torch._dynamo.config.patch(recompile_limit=1):
        work = Compiled(torch.neg, backend="eager")
        work(torch.ones(2))
        with pytest.raises(ConfigError, match=r"torch.compile failed \(FailOnRecompileLimitHit: .*\); set compile to"):
            work(torch.ones(2, dtype=torch.float64))


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
