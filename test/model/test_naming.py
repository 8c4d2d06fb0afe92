# SPDX-License-Identifier: Apache-2.0
import torch
from diffusers import Flux2Transformer2DModel

from imagewam_ros.core.contract import Denoising
from imagewam_ros.model import naming
from imagewam_ros.model.flux2 import Flux2Config, Flux2Transformer
from imagewam_ros.model.flux2_network import Flux2Network
from imagewam_ros.model.layers import grid_ids, latents_of
from imagewam_ros.model.protocol import Context
from imagewam_ros.model.safetensors_stream import lazily


def small(**changes):
    config = {"hidden": 64, "heads": 4, "axes": (4, 4, 4, 4), "double": 2, "single": 2, "channels": 16, "text_dim": 24}
    return Flux2Config(**{**config, "action_hidden": 16, **changes})


def diffusers_model():
    torch.manual_seed(0)
    return Flux2Transformer2DModel(
        patch_size=1, in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=4,
        joint_attention_dim=24, timestep_guidance_channels=256, mlp_ratio=3.0, axes_dims_rope=(4, 4, 4, 4),
        rope_theta=2000, guidance_embeds=False,
    ).eval()  # fmt: skip


def test_diffusers_weights_give_diffusers_velocity():
    other, network = diffusers_model(), Flux2Network(small())
    names = list(network.video.state_dict())
    theirs = {name: lazily(tensor) for name, tensor in other.state_dict().items()}
    found = naming.flux2_from_diffusers(theirs, names)
    network.video.load_state_dict({name: tensor.make() for name, tensor in found.items()}, strict=True)
    # without proprio and reference token the prefix is text alone, so compare on the whole sequence by hand:
    # the target reads prefix and itself, the prefix reads itself; diffusers lets all read all, so use one group
    target, text, time = torch.randn(1, 6, 16), torch.randn(1, 5, 24), torch.tensor([0.7])
    ids, index = grid_ids(2, 3, 0, 4), torch.zeros(5, 4)
    index[:, 3] = torch.arange(5)
    with torch.no_grad():
        wanted = other(
            hidden_states=target, encoder_hidden_states=text, timestep=time, img_ids=ids[None], txt_ids=index[None],
            return_dict=False,
        )[0]  # fmt: skip
        found = plain_velocity(network.video, target, text, time * 1000, ids, index)
    assert torch.allclose(found, wanted, atol=1e-5)


def plain_velocity(video: Flux2Transformer, target, text, timestep, ids, index):
    from imagewam_ros.model.layers import rotation
    from imagewam_ros.model.mot import attend, joined

    tables = [rotation(i, video.config.axes, video.config.theta) for i in (index, ids)]
    vector = video.time_in(timestep)
    modulation = video.modulation(vector)
    x, y = video.txt_in(text), video.img_in(target)
    for block in video.double_blocks:
        parts = (
            block.text.project(x, modulation.text, tables[0])[0],
            block.image.project(y, modulation.image, tables[1])[0],
        )
        out = attend(*joined(parts))
        x = block.text.merge(x, out[:, : x.shape[1]], modulation.text, None)
        y = block.image.merge(y, out[:, x.shape[1] :], modulation.image, None)
    s, table = torch.cat([x, y], 1), torch.cat(tables)
    for block in video.single_blocks:
        heads, extra = block.project(s, [modulation.single], table)
        s = block.merge(s, attend(*heads), [modulation.single], extra)
    head = video.final_layer
    return head(s[:, x.shape[1] :], head.modulation(vector))


def test_foreign_names_are_left_for_the_audit():
    state = {"mystery": lazily(torch.zeros(1))}
    assert "mystery" in naming.flux2_from_diffusers(state, list(Flux2Transformer(small()).state_dict()))


def test_every_name_has_a_counterpart():
    names = {source for name in Flux2Transformer(small()).state_dict() for source in naming.diffusers_names(name)}
    assert names == set(diffusers_model().state_dict())


def test_autoencoder_names_cover_the_published_file(flux2):
    assert flux2.codec.channels == 128  # built with strict=True from the original names


def test_network_runs_on_the_renamed_weights():
    network = Flux2Network(small())
    latents = latents_of(torch.randn(1, 6, 16), 2, 3)
    with torch.no_grad():
        cache = network.prefill(latents, Context(torch.randn(1, 4, 24)), torch.randn(1, 14), 4)
    plan = network.plan(Denoising(2))
    assert network.denoise(torch.randn(1, 4, 14), cache, plan).shape == (1, 4, 14)
