# SPDX-License-Identifier: Apache-2.0
"""All three backbones through the one protocol: cached equals joint, checkpoints round-trip."""

import dataclasses

import pytest
import torch
from diffusers import AutoencoderKL
from transformers import Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel, Qwen3Config, Qwen3Model

from imagewam_ros.core.contract import Denoising
from imagewam_ros.core.errors import CheckpointError, ConfigError
from imagewam_ros.model import factory, flow
from imagewam_ros.model.autoencoder import KlCodec, PackedKlCodec
from imagewam_ros.model.checkpoint import load_checkpoint, save_checkpoint
from imagewam_ros.model.omnigen2 import OmniGen2Config
from imagewam_ros.model.omnigen2_text import QwenVLText, VLTextSpec
from imagewam_ros.model.ovis_condition import OvisCondition, OvisText, OvisTextSpec
from imagewam_ros.model.ovis_u1 import OvisU1Config
from imagewam_ros.model.ovis_vision import VisionConfig, resized_size
from imagewam_ros.model.protocol import Context, JointBatch
from imagewam_ros.model.text import TextSpec, small_text
from imagewam_ros.model.wam import ImageWam

HORIZON = 6
VISION = VisionConfig(
    vocab=20, hidden=8, inner=16, layers=1, heads=2, image_size=28, min_pixels=784, max_pixels=3136
)  # fmt: skip


def kl(channels, **changes):
    levels = 4
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(4,) * levels, layers_per_block=1, latent_channels=channels, norm_num_groups=2, **changes,
    )  # fmt: skip


def omnigen2(tokenizer, **changes):
    config = OmniGen2Config(
        hidden=24, heads=4, kv_heads=2, axes=(2, 2, 2), layers=2, refiner_layers=1, multiple_of=8, text_dim=16,
        action_hidden=16, action_multiple_of=8, **changes,
    )  # fmt: skip
    llm = Qwen2_5_VLTextModel(
        Qwen2_5_VLTextConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=1,
            rope_parameters={"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4},
        )
    )  # fmt: skip
    spec = VLTextSpec(keep_pad=not config.pack_after_text)
    return config, spec, KlCodec(kl(16, scaling_factor=0.36, shift_factor=0.1)), QwenVLText(llm, tokenizer, spec, 16)


def ovis_u1(tokenizer):
    config = OvisU1Config(hidden=24, heads=2, axes=(4, 4, 4), double=1, single=2, text_dim=16)
    llm = Qwen3Model(
        Qwen3Config(
            vocab_size=len(tokenizer), hidden_size=8, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=1, head_dim=4,
        )
    )  # fmt: skip
    spec = OvisTextSpec(VISION)
    return config, spec, PackedKlCodec(kl(4)), OvisText(OvisCondition(VISION, llm), tokenizer, spec, 64)


@pytest.fixture(scope="module", params=["ovis_u1", "omnigen2", "omnigen2 other packing"])
def model(request):
    torch.manual_seed(0)
    tokenizer = small_text(["lift the tray"], TextSpec((1,)), hidden=8).tokenizer
    variant = request.param.split()[0]
    if variant == "ovis_u1":
        config, text_spec, codec, text = ovis_u1(tokenizer)
    else:
        config, text_spec, codec, text = omnigen2(tokenizer, pack_after_text=request.param == "omnigen2")
    spec = factory.ModelSpec(variant, config, text_spec)
    network = factory.build_network(spec)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2)
    return ImageWam(network.eval(), codec, text, spec, "do: {task}", HORIZON)


def inputs(model):
    generator = torch.Generator().manual_seed(1)
    image, proprio = torch.rand(1, 3, 32, 64, generator=generator) * 2 - 1, torch.randn(1, 14, generator=generator)
    return image, proprio, model.encode_instruction("lift the tray")


def test_cached_velocity_equals_joint_velocity(model):
    image, proprio, instruction = inputs(model)
    noise, timestep = torch.randn(1, HORIZON, 14), torch.tensor([600.0])
    context = model.text.condition(instruction.tokens, image)
    batch = JointBatch(model.encode_images(image), context, proprio, torch.zeros_like(noise), noise, timestep)
    with torch.no_grad():
        cached = model.velocity(0.6 * noise, timestep, model.prefill(image, proprio, instruction))
        joint = model.joint_forward(batch)
    assert torch.allclose(cached, joint.action, atol=1e-5)


def test_plan_and_reused_memory_change_nothing(model):
    image, proprio, instruction = inputs(model)
    noise, plan = torch.randn(1, HORIZON, 14), model.plan(Denoising(3))
    first = model.prefill(image, proprio, instruction)
    wanted = model.denoise(noise, first, plan)
    used = model.prefill(-image, proprio, instruction, plan)
    assert not torch.allclose(model.denoise(noise, used, plan), wanted, atol=1e-3)
    again = model.prefill(image, proprio, instruction, plan, used)
    assert again is used
    assert torch.allclose(model.denoise(noise, again, plan), wanted, atol=1e-5)
    assert again.nbytes > 0 and again.batch == 1 and again.prefix_length > 8


def test_joint_forward_learns_with_sub_batches_and_draws(model):
    image, proprio, instruction = inputs(model)
    latents = model.encode_images(torch.cat([image, -image]))
    context = model.text.condition(instruction.tokens, image)
    tokens = context.tokens.expand(2, -1, -1)
    batch = JointBatch(
        latents, Context(tokens, None if context.mask is None else context.mask.expand(2, -1)), proprio.repeat(2, 1),
        torch.randn(2, HORIZON, 14), torch.randn(4, HORIZON, 14), torch.tensor([900.0, 100, 500, 700]),
        latents[:1], torch.randn_like(latents[:1]), torch.tensor([400.0]),
    )  # fmt: skip
    found = model.joint_forward(batch)
    assert found.action.shape == (4, HORIZON, 14) and found.video.shape == latents[:1].shape
    flow.losses(found, batch).total.backward()
    silent = {name for name, p in model.network.named_parameters() if p.grad is None}
    model.network.zero_grad()
    assert silent == set()
    with torch.no_grad():
        whole = dataclasses.replace(batch, target=latents, target_noise=torch.zeros_like(latents))
        whole = dataclasses.replace(whole, target_timestep=torch.tensor([400.0, 400.0]), prefix_at_zero=False)
        assert not torch.allclose(model.joint_forward(whole).action, found.action, atol=1e-3)


def test_preview_is_an_image(model):
    image, proprio, instruction = inputs(model)
    found = model.preview(image, proprio, instruction, 7, Denoising(2))
    assert torch.equal(found, model.preview(image, proprio, instruction, 7, Denoising(2)))
    assert found.shape == image.shape and found.abs().max() <= 1 and found.isfinite().all()


def test_checkpoint_round_trip(model, contract, statistics, tmp_path):
    contract = dataclasses.replace(contract, variant=model.spec.variant, text_length=64)
    save_checkpoint(tmp_path / "policy", model, contract, statistics)
    loaded = load_checkpoint(tmp_path / "policy").model
    image, proprio, instruction = inputs(model)
    assert torch.equal(loaded.encode_instruction("lift the tray").tokens.float(), instruction.tokens.float())
    noise, plan = torch.randn(1, HORIZON, 14), model.plan(Denoising(3))
    chunks = [m.denoise(noise, m.prefill(image, proprio, instruction), plan) for m in (model, loaded)]
    assert torch.allclose(*chunks, atol=1e-5)


def test_image_is_part_of_the_condition_only_for_ovis(model):
    image, _, instruction = inputs(model)
    first, second = (model.text.condition(instruction.tokens, x).tokens for x in (image, -image))
    assert torch.equal(first, second) == (model.spec.variant != "ovis_u1")


def test_resized_size_is_that_of_the_published_layouts():
    assert resized_size(224, 448, 28, 200704, 2408448) == (336, 644)
    assert resized_size(288, 256, 28, 200704, 2408448) == (476, 448)
    assert resized_size(4000, 4000, 28, 200704, 2408448) == (1540, 1540)


def test_text_longer_than_the_positions_is_refused():
    config = OmniGen2Config(
        hidden=12, heads=2, kv_heads=1, axes=(2, 2, 2), axes_lengths=(4, 4, 4), layers=1, refiner_layers=1, text_dim=8,
        action_hidden=8,
    )  # fmt: skip
    network = factory.build_network(factory.ModelSpec("omnigen2", config, None))
    with pytest.raises(ConfigError, match="text of 6 tokens is longer than the positions 4"):
        network.prefill(torch.zeros(1, 16, 4, 4), Context(torch.zeros(1, 5, 8)), torch.zeros(1, 14), 2)


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (OmniGen2Config, {"hidden": 10}, "hidden 10 must be heads 21"),
        (OmniGen2Config, {"kv_heads": 4}, "heads 21 must be a multiple of kv_heads 4"),
        (OmniGen2Config, {"axes": (60, 60)}, "axes must be three even widths"),
        (OvisU1Config, {"hidden": 10}, "hidden 10 must be heads 12"),
        (OvisU1Config, {"axes": (64, 64)}, "axes must be three even widths"),
    ],
)
def test_impossible_numbers_are_refused(config, changes, message):
    with pytest.raises(ConfigError, match=message):
        config(**changes)


@pytest.mark.parametrize("text", [QwenVLText, OvisText])
def test_missing_text_encoder_is_named(text, tmp_path):
    spec = VLTextSpec() if text is QwenVLText else OvisTextSpec()
    with pytest.raises(CheckpointError, match="cannot load the (text|condition) encoder in"):
        text.load(tmp_path, spec, 8)


READ_BY = {
    "target": (False, True),
    "target_noise": (False, True),
    "actions": (True, False),
    "action_noise": (True, False),
    "reference": (True, True),
    "context": (True, True),
    "proprio": (True, True),
}
"""Which inputs may move (the action velocity, the image velocity): the mask table, seen from outside."""


@pytest.mark.parametrize("name", READ_BY)
def test_mask_table_holds(model, name):
    image, proprio, instruction = inputs(model)
    latents = model.encode_images(image)
    context = model.text.condition(instruction.tokens, image)
    draw = torch.Generator().manual_seed(2)
    batch = JointBatch(
        latents, context, proprio, torch.randn(1, HORIZON, 14, generator=draw),
        torch.randn(1, HORIZON, 14, generator=draw), torch.tensor([500.0]), -latents,
        torch.randn(latents.shape, generator=draw), torch.tensor([500.0]),
    )  # fmt: skip
    before = getattr(batch, name)
    changed = Context(-before.tokens, before.mask) if name == "context" else -before
    with torch.no_grad():
        first, second = (model.joint_forward(b) for b in (batch, dataclasses.replace(batch, **{name: changed})))
    moved = not torch.equal(first.action, second.action), not torch.equal(first.video, second.video)
    assert moved == READ_BY[name]
