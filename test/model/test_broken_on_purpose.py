# SPDX-License-Identifier: Apache-2.0
"""Negative controls: each mistake that an implementation could make must fail parity."""

import pytest
import torch

from imagewam_ros.model.autoencoder import Flux2Codec, PackedKlCodec
from imagewam_ros.model.flux2_network import Flux2Network
from imagewam_ros.model.omnigen2_network import OmniGen2Network
from imagewam_ros.model.ovis_u1_network import OvisU1Network
from imagewam_ros.model.parity import run_parity
from imagewam_ros.model.protocol import Context
from imagewam_ros.model.reference_flux2 import Flux2Reference
from imagewam_ros.model.reference_omnigen2 import OmniGen2Reference
from imagewam_ros.model.reference_ovis_u1 import OvisU1Reference

NETWORKS = {"flux2": Flux2Network, "ovis_u1": OvisU1Network, "omnigen2": OmniGen2Network}
REFERENCES = {"flux2": Flux2Reference, "ovis_u1": OvisU1Reference, "omnigen2": OmniGen2Reference}


def failed(data, variant, network=None, codec=None, reference=None, after=None):
    """Names outside their tolerance when the named parts are replaced, or `after` has edited the network."""
    base = reference or REFERENCES[variant]

    class Broken(base):
        network_class = network or NETWORKS[variant]
        codec_class = codec or getattr(base, "codec_class", Flux2Codec)

        def build_network(self):
            found = super().build_network()
            if after:
                after(found)
            return found

    directory = data / f"{variant}_tiny"
    report = run_parity(directory, Broken(directory))
    return {row.name for row in report.rows if not row.passed}


def actions(names):
    return {name for name in names if name.startswith("actions_steps")}


@pytest.mark.parametrize("variant", NETWORKS)
def test_nothing_fails_unbroken(data, variant):
    assert failed(data, variant) == set()


@pytest.mark.parametrize("variant", NETWORKS)
def test_prefix_at_noise_time(data, variant):
    class Late(NETWORKS[variant]):
        def prefill(self, latents, context, proprio, horizon, plan=None, cache=None):
            return super().prefill(latents, context, proprio, horizon, None, cache)

        def prefix_modulation(self, timestep):
            return super().prefix_modulation(timestep + 1000)

        def _modulation(self, timestep, prefix):
            return super()._modulation(timestep + 1000, prefix)

    assert actions(failed(data, variant, Late))


@pytest.mark.parametrize("variant", ["flux2", "ovis_u1"])
def test_reference_at_the_target_time(data, variant):
    class Same(NETWORKS[variant]):
        reference_time = 0

    assert {"ref_ids"} < failed(data, variant, Same)


def test_reference_at_the_text_index(data):
    class Same(OmniGen2Network):
        def _image_ids(self, index, grid):
            return super()._image_ids(torch.zeros_like(index), grid)

    assert actions(failed(data, "omnigen2", Same))


@pytest.mark.parametrize("variant", ["flux2", "ovis_u1"])
def test_rows_and_columns_swapped(data, variant):
    class Swapped(NETWORKS[variant]):
        def image_ids(self, rows, columns, time, device):
            ids = super().image_ids(rows, columns, time, device)
            return ids[:, [0, 2, 1, *range(3, ids.shape[1])]]

    assert actions(failed(data, variant, Swapped))


def test_rows_and_columns_swapped_in_omnigen2(data):
    class Swapped(OmniGen2Network):
        def _image_ids(self, index, grid):
            return super()._image_ids(index, grid)[..., [0, 2, 1]]

    assert actions(failed(data, "omnigen2", Swapped))


@pytest.mark.parametrize("variant", NETWORKS)
def test_text_mask_ignored(data, variant):
    class Unmasked(NETWORKS[variant]):
        def pack(self, context, token):
            return super().pack(Context(context.tokens), token)

    assert actions(failed(data, variant, Unmasked))


@pytest.mark.parametrize("variant", ["flux2", "omnigen2"])
def test_proprio_before_the_text(data, variant):
    class First(NETWORKS[variant]):
        def pack(self, context, token):
            packed = super().pack(context, token)
            return Context(
                torch.cat([token[:, None], context.tokens.to(token.dtype).expand(len(token), -1, -1)], 1), packed.mask
            )

    assert actions(failed(data, variant, First))


@pytest.mark.parametrize("variant", NETWORKS)
def test_proprio_left_out(data, variant):
    class Without(NETWORKS[variant]):
        def pack(self, context, token):
            return super().pack(context, torch.zeros_like(token))

    assert actions(failed(data, variant, Without))


def other_order(latents):
    """(c, row, column) channels as (row, column, c)."""
    return latents.unflatten(1, (-1, 4)).transpose(1, 2).flatten(1, 2)


def test_latents_packed_in_another_order(data):
    class Flux(Flux2Codec):
        def encode(self, images):
            return other_order(super().encode(images))

    class FluxReference(Flux2Reference):
        def build_codec(self):
            return Flux(super().build_codec().autoencoder)

    class Ovis(PackedKlCodec):
        def encode(self, images):
            return other_order(super().encode(images))

    class Omni(OmniGen2Network):
        def patches(self, latents):
            grid, found = super().patches(latents)
            return grid, found.unflatten(2, (4, -1)).transpose(2, 3).flatten(2)

    assert actions(failed(data, "flux2", reference=FluxReference))
    assert actions(failed(data, "ovis_u1", codec=Ovis))
    assert actions(failed(data, "omnigen2", Omni))


def test_class_token_replaced_by_the_mean(data):
    class Mean(OvisU1Network):
        def embed(self, latents, packed):
            prefix = super().embed(latents, packed)
            return prefix._replace(summary=prefix.text.mean(1))

    assert actions(failed(data, "ovis_u1", Mean))


def test_image_attention_left_out(data):
    def silence(network):
        for block in [*network.video.double_blocks, *network.action.double_blocks]:
            block.img_self_attn.proj.weight.data.zero_()
            block.img_self_attn.proj.bias.data.zero_()

    assert actions(failed(data, "ovis_u1", after=silence))


def test_key_heads_tiled(data):
    def tile(network):
        c = network.config
        order = torch.arange(c.heads).view(-1, c.kv_heads).T.flatten()  # head h then reads key head h % kv_heads
        for block in [*network.video.layers, *network.action.blocks]:
            q, out = block.attn.to_q.weight.data, block.attn.to_out[0].weight.data
            q.copy_(q.unflatten(0, (c.heads, -1))[order].flatten(0, 1))
            out.copy_(out.unflatten(1, (c.heads, -1))[:, order].flatten(1))

    assert actions(failed(data, "omnigen2", after=tile))


@pytest.mark.parametrize("variant", ["flux2", "ovis_u1"])
def test_queries_and_keys_exchanged(data, variant):
    def exchange(network):
        for block in network.video.double_blocks:
            rows = block.img_attn.qkv.weight.data
            q, k, v = rows.clone().chunk(3)
            rows.copy_(torch.cat([k, v, q]))

    assert actions(failed(data, variant, after=exchange))


def test_exact_times_are_not_the_released_models_times(data):
    class Exact(Flux2Reference):
        def actions_on_rounded_times(self, steps):
            return self.actions(steps, "default")

    assert failed(data, "flux2", reference=Exact) == {"actions_steps10_bf16grid_fp32"}
