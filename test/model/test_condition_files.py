# SPDX-License-Identifier: Apache-2.0
"""Condition encoders from files that do not fit, and what they make of a prompt."""

import json
import shutil
import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel, Qwen3Config, Qwen3Model

from imagewam_ros.core.errors import CheckpointError, ConfigError
from imagewam_ros.model.omnigen2_text import QwenVLText, VLTextSpec
from imagewam_ros.model.ovis_condition import IMAGE, IMAGE_END, IMAGE_START, OvisCondition, OvisText, OvisTextSpec
from imagewam_ros.model.ovis_vision import VisionConfig
from imagewam_ros.model.reference_ovis_condition import OvisConditionReference
from imagewam_ros.model.text import TextSpec, small_text

SPEC = OvisTextSpec(
    VisionConfig(vocab=20, hidden=8, inner=16, layers=1, heads=2, image_size=28, min_pixels=784, max_pixels=3136)
)
FILE = "visual_tokenizer.safetensors"
PROMPT = "lift the tray with both arms"


@pytest.fixture(scope="module")
def words():
    return small_text([PROMPT], TextSpec((1,)), hidden=8).tokenizer


@pytest.fixture(scope="module")
def ovis(words):
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(words),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
    )
    return OvisText(OvisCondition(SPEC.vision, Qwen3Model(config)), words, SPEC, 64)


@pytest.fixture(scope="module")
def language_model(words):
    torch.manual_seed(0)
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    config = Qwen2_5_VLTextConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        rope_parameters=rope,
    )
    return Qwen2_5_VLTextModel(config)


@pytest.fixture
def saved(ovis, tmp_path):
    ovis.save(tmp_path)
    return tmp_path


def rewrite(path, change):
    state = load_file(path)
    change(state)
    save_file(state, path)


def test_saved_ovis_condition_answers_the_same(ovis, saved):
    loaded = OvisText.load(saved, SPEC, 64)
    images = torch.linspace(-1, 1, 3 * 28 * 28).view(1, 3, 28, 28)
    ids = ovis.encode(PROMPT)
    assert torch.equal(loaded.encode(PROMPT), ids)
    assert torch.allclose(loaded.condition(ids, images).tokens, ovis.condition(ids, images).tokens, atol=1e-6)


def test_missing_visual_weight_is_named(saved):
    rewrite(saved / FILE, lambda state: state.pop("vte.weight"))
    with pytest.raises(CheckpointError, match=rf"{FILE} does not fit: vte\.weight$"):
        OvisText.load(saved, SPEC, 64)


def test_weight_of_no_layer_is_named(saved):
    rewrite(saved / FILE, lambda state: state.update({"vte.bias": torch.zeros(8)}))
    with pytest.raises(CheckpointError, match=rf"{FILE} does not fit: vte\.bias$"):
        OvisText.load(saved, SPEC, 64)


def test_weight_of_another_shape_is_refused(saved):
    rewrite(saved / FILE, lambda state: state.update({"vte.weight": torch.zeros(21, 8)}))
    with pytest.raises(CheckpointError, match=r"(?s)cannot load the condition encoder in .*vte\.weight"):
        OvisText.load(saved, SPEC, 64)


def test_torn_visual_tokenizer_is_refused(saved):
    (saved / FILE).write_bytes((saved / FILE).read_bytes()[:40])
    with pytest.raises(CheckpointError, match="cannot load the condition encoder in"):
        OvisText.load(saved, SPEC, 64)


def test_one_image_stands_between_its_marks(ovis):
    ids = ovis.encode(PROMPT).tolist()
    at = ids.index(IMAGE)
    assert ids[at - 1 : at + 2] == [IMAGE_START, IMAGE, IMAGE_END]
    assert [x for x in ids if x < 0] == [IMAGE_START, IMAGE, IMAGE_END]
    assert ovis.encode(f"  {PROMPT}\n").tolist() == ids


def test_visual_tokens_take_the_place_of_the_image(ovis):
    ids = ovis.encode(PROMPT)[None]
    visual = torch.softmax(torch.randn(1, 5, 20, generator=torch.Generator().manual_seed(0)), -1)
    merged, valid = ovis.model.merge(ids, visual, torch.ones_like(ids, dtype=torch.bool))
    at = ids[0].tolist().index(IMAGE)
    table = ovis.model.vte.weight
    assert merged.shape == (1, ids.shape[1] + 4, 8) and valid.shape == merged.shape[:2] and valid.all()
    assert torch.allclose(merged[0, at : at + 5], visual[0] @ table, atol=1e-6)
    assert torch.equal(merged[0, at - 1], table[-5]) and torch.equal(merged[0, at + 5], table[-4])


@pytest.fixture
def reference(data, tmp_path):
    return shutil.copytree(data / "ovis_cond_tiny", tmp_path / "reference")


def test_reference_without_a_weight_does_not_fit(reference):
    rewrite(reference / "ovis_condition.safetensors", lambda state: state.pop("vte.weight"))
    with pytest.raises(CheckpointError, match=r"ovis_condition\.safetensors does not fit: .*vte\.weight"):
        OvisConditionReference(reference)


def test_reference_without_a_number_lacks_it(reference):
    config = json.loads((reference / "config.json").read_text())
    del config["cond"]["llm"]["kv_heads"]
    (reference / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="lacks 'kv_heads'; see the layout of the test data"):
        OvisConditionReference(reference)


@pytest.mark.parametrize("keep_pad", [False, True])
def test_pad_row_is_there_and_masked(language_model, words, keep_pad):
    text = QwenVLText(language_model, words, VLTextSpec(keep_pad), 64)
    count = len(words(PROMPT)["input_ids"])
    tokens = text.encode(PROMPT)
    context = text.condition(tokens, torch.zeros(1, 3, 8, 8))
    assert tokens.shape == (count + keep_pad, 16)
    if keep_pad:
        assert context.mask.tolist() == [[True] * count + [False]]
    else:
        assert context.mask is None


def test_pad_row_changes_no_feature_of_the_text(language_model, words):
    plain, padded = (QwenVLText(language_model, words, VLTextSpec(keep), 64).encode(PROMPT) for keep in (False, True))
    assert torch.allclose(plain, padded[:-1], atol=1e-6)


def test_prompt_that_is_too_long_is_refused(language_model, words, ovis):
    length = len(QwenVLText(language_model, words, VLTextSpec(), 64).encode(PROMPT))
    with pytest.raises(ConfigError, match=rf"too long: {length} tokens with its prompt, .* reads 3; shorten it"):
        QwenVLText(language_model, words, VLTextSpec(), 3).encode(PROMPT)
    with pytest.raises(ConfigError, match=r"too long: \d+ tokens with its prompt, this checkpoint reads 9"):
        OvisText(ovis.model, words, SPEC, 9).encode(PROMPT)


def test_saved_language_model_answers_the_same(language_model, words, tmp_path):
    text = QwenVLText(language_model, words, VLTextSpec(), 64)
    text.save(tmp_path)
    assert torch.allclose(QwenVLText.load(tmp_path, VLTextSpec(), 64).encode(PROMPT), text.encode(PROMPT), atol=1e-6)


def test_pad_row_does_not_see_itself(language_model, words):
    row = QwenVLText(language_model, words, VLTextSpec(True), 64).encode(PROMPT)[-1]
    ids = torch.tensor([[*words(PROMPT)["input_ids"], words.pad_token_id]])
    blind, seeing = torch.ones_like(ids), torch.ones_like(ids)
    blind[0, -1] = 0
    with torch.no_grad():
        own, other = (language_model(ids, attention_mask=x).last_hidden_state[0, -1] for x in (blind, seeing))
    assert torch.allclose(row, own, atol=1e-6) and not torch.allclose(row, other, atol=1e-5)


def test_a_released_language_model_is_read_again(language_model, words, tmp_path):
    made = QwenVLText(language_model, words, VLTextSpec(), 64)
    made.save(tmp_path)
    loaded = QwenVLText.load(tmp_path, VLTextSpec(), 64)
    wanted = loaded.encode(PROMPT)
    dropped = weakref.ref(loaded.model)
    assert loaded.release() and dropped() is None
    assert torch.equal(loaded.to("cpu").encode(PROMPT), wanted)
    assert not made.release(), "it came from no directory"


def test_an_encoder_that_sees_images_stays(ovis):
    assert not ovis.release() and ovis.model is not None
