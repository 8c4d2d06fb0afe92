# SPDX-License-Identifier: Apache-2.0
import weakref

import pytest
import torch

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.autoencoder import Flux2Codec
from imagewam_ros.model.text import QwenText, TextSpec, small_text


def test_latents_decode_to_the_image_size(small_model):
    image = torch.rand(2, 3, 32, 64) * 2 - 1
    latents = small_model.encode_images(image)
    assert latents.shape == (2, 16, 2, 4)
    assert small_model.codec.decode(latents).shape == image.shape


def test_statistics_normalise_the_latents(small_model):
    codec, images = small_model.codec, torch.rand(4, 3, 32, 64) * 2 - 1
    packed, _ = codec.moments(images)
    norm = codec.autoencoder.bn
    before = norm.running_mean.clone(), norm.running_var.clone()
    codec.set_statistics(packed.mean((0, 2, 3)), packed.var((0, 2, 3)))
    latents = codec.encode(images)
    codec.set_statistics(*before)
    assert torch.allclose(latents.mean((0, 2, 3)), torch.zeros(16), atol=1e-4)
    assert (latents.std((0, 2, 3)) < 1.1).all()


def test_encoding_is_deterministic(small_model):
    image = torch.rand(1, 3, 32, 64)
    assert torch.equal(small_model.encode_images(image), small_model.encode_images(image))


def test_features_are_the_hidden_states_of_the_layers(small_model):
    text = small_model.text
    found = text.encode("lift the tray")
    assert found.shape[1] == text.width == 24
    ids = torch.tensor([text.tokenizer("lift the tray")["input_ids"]])
    states = text.model(input_ids=ids, output_hidden_states=True).hidden_states
    assert torch.equal(found, torch.cat([states[1][0], states[2][0]], -1))
    assert torch.equal(states[2], text.model(input_ids=ids).last_hidden_state)  # no final norm


def test_different_instructions_differ_and_the_prompt_wraps_them(small_model):
    first, second = (small_model.encode_instruction(task) for task in ("lift the tray", "open the box"))
    assert first.tokens.shape != second.tokens.shape or not torch.equal(first.tokens, second.tokens)
    assert torch.equal(first.tokens, small_model.text.encode("do: lift the tray"))


def test_any_text_can_be_read_and_too_long_a_text_is_refused(small_model):
    assert len(small_model.text.encode("ünkn 字")) <= 16
    with pytest.raises(
        ConfigError, match=r"too long: \d+ tokens with its prompt, this checkpoint reads 16; shorten it"
    ):
        small_model.text.encode("ünknown 字 " * 40)


def test_small_encoder_repeats_and_leaves_the_global_generator_alone():
    state = torch.random.get_rng_state()
    first, second = (small_text(["a b"], TextSpec((1,)), hidden=8, seed=3) for _ in range(2))
    assert torch.equal(first.encode("a b"), second.encode("a b"))
    assert torch.equal(state, torch.random.get_rng_state())


def test_saved_encoder_reads_the_same(small_model, tmp_path):
    small_model.text.save(tmp_path)
    loaded = QwenText.load(tmp_path, TextSpec((1, 2)), 16)
    assert torch.allclose(loaded.encode("lift"), small_model.text.encode("lift"), atol=1e-6)


def test_only_the_layers_that_are_read_are_kept(small_model, tmp_path):
    small_model.text.save(tmp_path)
    loaded = QwenText.load(tmp_path, TextSpec((1,)), 16)
    assert len(loaded.model.layers) == 1
    assert torch.allclose(loaded.encode("lift"), small_model.text.encode("lift")[:, :12], atol=1e-6)


def test_layers_count_from_one():
    with pytest.raises(ConfigError, match="text layers count from 1"):
        TextSpec((0, 1))


def test_a_saved_autoencoder_does_not_tell_where_it_came_from(small_model, tmp_path):
    small_model.codec.save(tmp_path / "first")
    loaded = Flux2Codec.load(tmp_path / "first")
    loaded.save(tmp_path / "second")
    assert str(tmp_path) not in (tmp_path / "second" / "config.json").read_text()


def test_released_encoder_is_read_again_when_needed(small_model, tmp_path):
    small_model.text.save(tmp_path)
    loaded = QwenText.load(tmp_path, TextSpec((1, 2)), 16)
    wanted = loaded.encode("lift")
    dropped = weakref.ref(loaded.model)
    assert loaded.release() and dropped() is None
    assert torch.equal(loaded.to("cpu").encode("lift"), wanted)
    assert not small_model.text.release()


def test_seeded_draw_repeats_and_differs_from_the_mean(small_model):
    image, codec = torch.rand(1, 3, 32, 64), small_model.codec
    mean = codec.encode(image)
    try:
        codec.posterior_seed = 3
        first, again = codec.encode(image), codec.encode(image)
        codec.posterior_seed = 4
        other = codec.encode(image)
    finally:
        codec.posterior_seed = None
    assert torch.equal(first, again)
    assert not torch.allclose(first, mean) and not torch.allclose(first, other)
