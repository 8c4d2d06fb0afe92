# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from imagewam_ros.core.contract import Denoising
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.graph import Captured
from imagewam_ros.model.protocol import Context
from imagewam_ros.model.sampler import Sampler, SamplerConfig


def test_graph_is_refused_without_cuda(small_model):
    text = "cuda_graph needs a CUDA device, found cpu; set cuda_graph to false"
    with pytest.raises(ConfigError, match=text):
        Captured(torch.neg, torch.zeros(1))
    with pytest.raises(ConfigError, match=text):
        Sampler(small_model.network, Denoising(), 6, SamplerConfig(cuda_graph=True))
    with pytest.raises(ConfigError, match="cuda_graph is there for one draw by sequential steps"):
        SamplerConfig(cuda_graph=True, samples=2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_graph_gives_the_plain_actions(small_model):
    network = small_model.network.to("cuda")
    try:
        latents = torch.zeros(1, network.config.channels, 2, 4, device="cuda")
        context = Context(torch.zeros(1, 5, network.config.text_dim, device="cuda"))
        with torch.no_grad():
            cache = network.prefill(latents, context, torch.zeros(1, 14, device="cuda"), 6)
            plain, graph = (
                Sampler(network, Denoising(), 6, SamplerConfig(cuda_graph=captured)) for captured in (False, True)
            )
            for seed in (0, 1):
                assert torch.equal(plain.draw(seed, cache).actions, graph.draw(seed, cache).actions)
    finally:
        network.to("cpu")
