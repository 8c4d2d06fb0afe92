# SPDX-License-Identifier: Apache-2.0
"""What a CUDA graph needs of both parts of a chunk, tried without a device: no value is read, nothing leaves
the device, addresses stay; and the bookkeeping of graphs.
"""

from functools import partial

import pytest
import small_networks
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from imagewam_ros.core.contract import Denoising
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.autoencoder import drawn
from imagewam_ros.model.chunking import Committed, frozen_inputs, frozen_steps, soft_weights
from imagewam_ros.model.graph import KEPT, Captured, GraphedLoops, GraphedPrefill
from imagewam_ros.model.lanes import with_lanes
from imagewam_ros.model.mot import buffers_of
from imagewam_ros.model.picard import plan_sweeps, sweep_all
from imagewam_ros.model.protocol import Context
from imagewam_ros.model.sampler import Sampler, SamplerConfig

HORIZON = 6
STEPS = Denoising(steps=3)


def inputs(network, seed, length=5, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    c = network.config
    shapes = ((1, c.channels, 4, 8), (1, c.proprio_dim), (1, length, c.text_dim))
    return [torch.randn(shape, generator=generator).to(device) for shape in shapes]


def noise(network, seed, device="cpu"):
    shape = 1, HORIZON, network.config.action_dim
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)


def after_rows(network, seed, device="cpu"):
    """Inputs of the loop after committed rows, another number of them for another seed."""
    rows = seed % HORIZON
    known = torch.full((HORIZON, network.config.action_dim - len(network.config.padded_dims)), 0.3)
    return list(frozen_inputs(network, noise(network, seed, device), Committed(known, soft_weights(6, rows, 6), rows)))


def parts_of_a_chunk(network):
    """Prefill, sequential steps, the same after committed rows, and sweeps as functions of tensors alone."""
    plan = network.plan(STEPS)
    sweeps = plan_sweeps(network, plan, HORIZON, 3)

    def prefill(latents, proprio, tokens):
        return buffers_of(network.prefill(latents, Context(tokens), proprio, HORIZON, plan))

    with torch.no_grad():
        latents, proprio, tokens = inputs(network, 0)
        cache = network.prefill(latents, Context(tokens), proprio, HORIZON, plan)
        lanes = with_lanes(cache, STEPS.steps)

    return {
        "prefill": (prefill, lambda seed: inputs(network, seed)),
        "steps": (lambda x: network.denoise(x, cache, plan), lambda seed: [noise(network, seed)]),
        "frozen": (lambda *x: frozen_steps(network, *x, cache, plan), lambda seed: after_rows(network, seed)),
        "sweeps": (lambda x: sweep_all(network, x, lanes, plan, sweeps), lambda seed: [noise(network, seed)]),
    }


@pytest.mark.parametrize("backbone", small_networks.BACKBONES)
@pytest.mark.parametrize("part", ["prefill", "steps", "frozen", "sweeps"])
def test_no_value_decides_what_runs(backbone, part):
    """Traced without values, then replayed on others: the trace would fail at the first value that is read."""
    network = small_networks.network(backbone).requires_grad_(False)
    work, make = parts_of_a_chunk(network)[part]
    work(*make(0))
    with torch.no_grad():
        traced = make_fx(work, tracing_mode="fake", _allow_non_fake_inputs=True)(*make(0))
        for seed in (1, 2):
            found, wanted = (tree_leaves(each(*make(seed))) for each in (traced, work))
            assert len(found) == len(wanted) and all(map(torch.equal, found, wanted))


def test_the_trace_finds_a_value_that_is_read():
    with pytest.raises(GuardOnDataDependentSymNode):
        make_fx(lambda x: x + 1 if x.sum() > 0 else x, tracing_mode="fake")(torch.ones(2))


class Crossings(TorchDispatchMode):
    """Calls whose tensors are not all on one device."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        if len({tensor.device for tensor in tensors}) > 1:
            self.found.append(str(func))
        return result


@pytest.mark.parametrize("backbone", small_networks.BACKBONES)
@pytest.mark.parametrize("padded", [(), (1,)])
def test_nothing_leaves_the_device(backbone, padded):
    """The device is "meta", which also fails where a value is read back."""
    network = small_networks.network(backbone, padded_dims=padded).to("meta").requires_grad_(False)
    with torch.no_grad():
        plan = network.plan(STEPS)
        latents, proprio, tokens = inputs(network, 0, device="meta")
        meant = network.without_padding(proprio)
        cache = network.prefill(latents, Context(tokens), network.with_padding(meant), HORIZON, plan)
        start = noise(network, 0, "meta")
        after = after_rows(network, 2, "meta")
        network.denoise(start, cache, plan)  # makes the rotary table
        with Crossings() as crossings:
            state = network.with_padding(meant)
            again = network.prefill(latents, Context(tokens), state, HORIZON, plan, cache)
            network.denoise(start, again, plan)
            frozen_steps(network, *after, again, plan)
    assert again is cache and crossings.found == []


def test_the_noise_of_a_posterior_is_fetched_once():
    mean = torch.zeros(1, 4, 2, 2, device="meta")
    drawn(mean, mean, 3)
    with Crossings() as crossings:
        drawn(mean, mean, 3)
    assert crossings.found == []


class Reads(TorchDispatchMode):
    """Memory that a call reads and did not make; the weak references keep none of it."""

    def __init__(self):
        super().__init__()
        self.made, self.found = {}, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for tensor in self.tensors((args, kwargs)):
            constant = func is torch.ops.aten.lift_fresh.default  # of the code, an argument of its kernel
            if tensor.untyped_storage()._cdata not in self.made and not constant:
                self.found[tensor.untyped_storage()._cdata] = StorageWeakRef(tensor.untyped_storage())
        result = func(*args, **(kwargs or {}))
        for tensor in self.tensors(result):
            if tensor.untyped_storage()._cdata not in self.found:
                self.made[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return result

    def tensors(self, tree):
        return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class Called:
    """Stands where a graph would: replays by calling, on copies of its inputs at fixed addresses.

    A graph reads addresses: all that it read when it was made must still be there.
    """

    made = 0

    def __init__(self, work, *like):
        Called.made += 1
        self.work, self.inputs = work, [each.clone() for each in like]
        with Reads() as reads:
            work(*self.inputs)
        self.reads = list(reads.found.values())

    def __call__(self, *values):
        assert not any(read.expired() for read in self.reads), "a graph would read freed memory"
        for kept, value in zip(self.inputs, values, strict=True):
            kept.copy_(value)
        return self.work(*self.inputs)


@pytest.fixture
def graphed(request):
    network = small_networks.network(getattr(request, "param", "flux2")).requires_grad_(False)
    plan = network.plan(STEPS)

    def work(images, proprio, tokens, cache):
        return network.prefill(images, Context(tokens), proprio, HORIZON, plan, cache)

    Called.made = 0
    return network, work, GraphedPrefill(work, lambda cache: cache, Called)


@pytest.mark.parametrize("graphed", small_networks.BACKBONES, indirect=True)
def test_each_length_of_text_has_one_graph_and_one_cache(graphed):
    network, work, prefill = graphed
    addresses = {}
    for seed, length in enumerate((5, 7, 5, 5, 7)):
        latents, proprio, tokens = inputs(network, seed, length)
        with torch.no_grad():
            cache, wanted = prefill(latents, proprio, Context(tokens)), work(latents, proprio, tokens, None)
        assert all(map(torch.equal, buffers_of(cache), buffers_of(wanted)))
        address = [buffer.data_ptr() for buffer in buffers_of(cache)]
        assert addresses.setdefault(length, address) == address
    assert Called.made == 2 and addresses[5] != addresses[7]


def test_the_oldest_graph_is_forgotten(graphed):
    network, _, prefill = graphed
    for length in [*range(1, KEPT + 2), KEPT + 1, 1]:
        latents, proprio, tokens = inputs(network, 0, length)
        with torch.no_grad():
            prefill(latents, proprio, Context(tokens))
    assert Called.made == KEPT + 2  # the last length was kept, the first had to be made again


def test_each_cache_and_plan_has_one_loop_for_any_number_of_rows():
    network = small_networks.network("flux2").requires_grad_(False)
    plans = [network.plan(Denoising(steps=steps)) for steps in (2, 3)]
    caches = []
    for length in (5, 7):
        latents, proprio, tokens = inputs(network, 0, length)
        caches.append(network.prefill(latents, Context(tokens), proprio, HORIZON))
    Called.made, loops = 0, GraphedLoops(Called)
    for seed in range(4):
        for cache in caches:
            for plan in plans:
                values = after_rows(network, seed)
                found = loops(partial(frozen_steps, network), cache, plan, *values)
                assert torch.equal(found, frozen_steps(network, *values, cache, plan))
    assert Called.made == loops.captures == 4


def test_padded_text_is_refused(graphed):
    network, _, prefill = graphed
    latents, proprio, tokens = inputs(network, 0)
    with pytest.raises(ConfigError, match="cuda_graph needs text without padding, which this checkpoint keeps"):
        prefill(latents, proprio, Context(tokens, torch.ones(1, 5, dtype=torch.bool)))


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
@pytest.mark.parametrize("backbone", small_networks.BACKBONES)
@pytest.mark.parametrize("chunking", ["none", "frozen"])
def test_graphs_give_the_plain_actions(backbone, chunking):
    device = f"cuda:{torch.cuda.device_count() - 1}"  # where there are several, not the current one
    network = small_networks.network(backbone).to(device).requires_grad_(False)
    plain, graph = (
        Sampler(network, Denoising(), HORIZON, SamplerConfig(cuda_graph=captured, chunking=chunking))
        for captured in (False, True)
    )
    known = torch.full((HORIZON, network.config.action_dim), 0.3)

    def work(images, proprio, tokens, cache):
        return network.prefill(images, Context(tokens), proprio, HORIZON, plain.plan, cache)

    prefill = GraphedPrefill(work, graph.room)
    for seed, length in enumerate((5, 7, 5)):
        latents, proprio, tokens = inputs(network, seed, length, device)
        with torch.no_grad():
            committed = Committed(known, soft_weights(HORIZON, seed, HORIZON), seed)
            wanted = plain.draw(seed, work(latents, proprio, tokens, None), committed=committed).actions
            found = graph.draw(seed, prefill(latents, proprio, Context(tokens)), committed=committed).actions
        assert torch.equal(found, wanted)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_failed_capture_says_what_to_change():
    with pytest.raises(ConfigError, match=r"capturing a CUDA graph failed .*; set cuda_graph to false"):
        Captured(lambda x: x.cpu(), torch.zeros(4, device="cuda"))
