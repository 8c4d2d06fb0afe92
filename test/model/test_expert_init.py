# SPDX-License-Identifier: Apache-2.0
import torch

from imagewam_ros.model.expert_init import Inheritance, inherited
from imagewam_ros.model.flux2 import Flux2Config
from imagewam_ros.model.flux2_network import Flux2Network


def ramp(*shape):
    return torch.linspace(0, 1, shape[0])[:, None].expand(shape).clone()


def test_resizing_is_linear_and_keeps_the_ends():
    found = inherited({"a": torch.zeros(3, 2)}, {"a": ramp(9, 2)}, Inheritance())["a"]
    assert torch.allclose(found[:, 0], torch.tensor([0.0, 0.5, 1.0]))


def test_parts_of_a_fused_tensor_do_not_mix():
    source = torch.cat([torch.zeros(4, 2), torch.ones(4, 2)])
    rule = Inheritance(parts=(("a", 0, (4, 4), (3, 2)),))
    apart = inherited({"a": torch.zeros(5, 2)}, {"a": source}, rule)["a"]
    mixed = inherited({"a": torch.zeros(5, 2)}, {"a": source}, rule, authors_way=True)["a"]
    assert apart.unique().tolist() == [0, 1]
    assert len(mixed.unique()) > 2


def test_rescaling_follows_the_inputs():
    rule = Inheritance(rescaled=True)
    found = inherited({"a": torch.zeros(4, 4)}, {"a": torch.ones(4, 16)}, rule)["a"]
    assert torch.allclose(found, torch.full((4, 4), 2.0))


def test_expert_takes_over_all_but_its_ends():
    torch.manual_seed(0)
    config = Flux2Config(
        hidden=32, heads=2, axes=(4, 4, 4, 4), double=1, single=1, channels=16, text_dim=8, action_hidden=16
    )
    network = Flux2Network(config)
    expert = network.action.state_dict()
    after = inherited(expert, network.video.state_dict(), network.inheritance())
    assert expert.keys() - after.keys() == {name for name in expert if name.startswith(("action_encoder.", "head."))}
    qkv = network.video.double_blocks[0].img_attn.qkv.weight
    assert torch.allclose(after["double_blocks.0.img_attn.qkv.weight"][:, 0], qkv[:, 0] * 2**0.5)
