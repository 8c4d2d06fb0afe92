# SPDX-License-Identifier: Apache-2.0
"""Frozen encoders that were cut, spoilt or made with bad intent: refused by name, and nothing of them runs."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from imagewam_ros.core.errors import CheckpointError
from imagewam_ros.model.checkpoint import load_checkpoint, save_checkpoint
from imagewam_ros.model.frozen import load_tokenizer

AUTOENCODER = "autoencoder/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
FILES = (
    "config.json", "stats.json", "model.safetensors", "autoencoder/config.json", AUTOENCODER,
    "text_encoder/config.json", TEXT, "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json",
    "tokenizer/chat_template.jinja",
)  # fmt: skip


@pytest.fixture(scope="module")
def saved(small_model, contract, statistics, tmp_path_factory):
    directory = tmp_path_factory.mktemp("frozen") / "policy"
    save_checkpoint(directory, small_model, contract, statistics)
    return directory


@pytest.fixture
def copy(saved, tmp_path, monkeypatch):
    shutil.copytree(saved, tmp_path / "policy")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "policy"


class Payload:
    def __reduce__(self):
        return (open, ("executed", "w"))


SPOILT = {
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "pickled": lambda path: torch.save({"weight": Payload()}, path),
}


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("name", FILES)
def test_every_file_is_refused_where_it_lies(copy, name, how):
    SPOILT[how](copy / name)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(copy)
    assert str(copy / name.split("/")[0]) in str(caught.value)
    assert not (copy.parent / "executed").exists()


def drop(path, wanted):
    """Leave out the weights that `wanted` chooses by name."""
    kept = {name: tensor for name, tensor in load_file(path).items() if not wanted(name)}
    save_file(kept, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("file", "wanted", "message"),
    [
        (
            AUTOENCODER,
            lambda name: name == "encoder.conv_in.bias",
            r"autoencoder lacks encoder\.conv_in\.bias; copy",
        ),
        (AUTOENCODER, lambda name: name == "decoder.conv_out.bias", r"lacks decoder\.conv_out\.bias; copy it"),
        (AUTOENCODER, lambda name: name.startswith("bn.running"), r"lacks bn\.running_mean, bn\.running_var; copy it"),
        (AUTOENCODER, lambda name: name.startswith("encoder."), r"lacks encoder\.\S+, .* and \d+ more; copy it"),
        (TEXT, lambda name: "embed_tokens" in name, r"text_encoder lacks embed_tokens\.weight; copy it"),
    ],
)
def test_missing_weights_are_named_and_not_drawn_at_random(copy, file, wanted, message):
    drop(copy / file, wanted)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(copy)


def test_weight_of_another_width_is_refused(copy):
    state = load_file(copy / AUTOENCODER)
    state["encoder.conv_in.bias"] = state["encoder.conv_in.bias"][:1].clone()
    save_file(state, copy / AUTOENCODER)
    with pytest.raises(CheckpointError, match=r"cannot load the autoencoder in .*encoder\.conv_in\.bias"):
        load_checkpoint(copy)


@pytest.mark.parametrize(
    ("file", "pickled"),
    [(AUTOENCODER, "diffusion_pytorch_model.bin"), (TEXT, "pytorch_model.bin")],
)
def test_pickled_weights_in_place_of_safetensors_are_not_read(copy, file, pickled):
    (copy / file).unlink()
    torch.save({"weight": Payload()}, (copy / file).with_name(pickled))
    with pytest.raises(CheckpointError, match=rf"no safetensors file \(found {pickled}\).* pickled weights are not"):
        load_checkpoint(copy)
    assert not (copy.parent / "executed").exists()


def test_code_beside_the_tokenizer_never_runs(copy):
    path = copy / "tokenizer" / "tokenizer_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}))
    (copy / "tokenizer" / "own.py").write_text("open('executed', 'w')\nclass Own: pass\n")
    with pytest.raises(CheckpointError, match=r"(?s)cannot load the tokenizer in .*code beside it is never run"):
        load_tokenizer(copy / "tokenizer")
    assert not (copy.parent / "executed").exists()


@pytest.mark.parametrize(
    ("template", "message"),
    [(None, "cannot be used"), ("hello", "loses the prompt"), ("{% for m in %}", "cannot be used: .*; copy it again")],
)
def test_chat_template_that_loses_the_words_is_refused(copy, template, message):
    path = copy / "tokenizer" / "chat_template.jinja"
    path.unlink() if template is None else path.write_text(template)
    with pytest.raises(CheckpointError, match=rf"(?s)the chat template in .*tokenizer {message}"):
        load_checkpoint(copy)


def test_without_decoder_a_policy_acts_but_imagines_nothing(copy, contract):
    whole = load_checkpoint(copy).model
    drop(copy / AUTOENCODER, lambda name: name.startswith("decoder."))
    acting = load_checkpoint(copy).model
    image = torch.linspace(-1, 1, 3 * 32 * 64).reshape(1, 3, 32, 64)
    assert torch.equal(acting.encode_images(image), whole.encode_images(image))
    with pytest.raises(CheckpointError, match=r"autoencoder has no decoder, .*copy the weights decoder\.\*"):
        acting.preview(image, torch.ones(1, 14), acting.encode_instruction("lift"), 0, contract.denoising)
    acting.codec.save(copy.parent / "again")
    assert not [name for name in load_file(copy.parent / "again" / AUTOENCODER.split("/")[1]) if "decoder" in name]
