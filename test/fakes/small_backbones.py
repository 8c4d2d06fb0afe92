# SPDX-License-Identifier: Apache-2.0
"""Published image editors at small sizes: folders with the names, files and keys of the real repositories."""

import dataclasses
import json
from pathlib import Path

import torch
import yaml
from diffusers import AutoencoderKL, AutoencoderKLFlux2
from safetensors.torch import save_file
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen3Config, Qwen3ForCausalLM

from imagewam_ros.core.contract import PROMPT
from imagewam_ros.model import factory
from imagewam_ros.model.flux2 import Flux2Config
from imagewam_ros.model.naming import SWAPPED, diffusers_names
from imagewam_ros.model.omnigen2 import OmniGen2Config
from imagewam_ros.model.omnigen2_text import VLTextSpec
from imagewam_ros.model.ovis_condition import OvisTextSpec
from imagewam_ros.model.ovis_u1 import OvisU1Config
from imagewam_ros.model.ovis_vision import VisionConfig, VisualTokenizer
from imagewam_ros.model.text import TextSpec, small_text

FLUX2 = {"heads": 2, "channels": 16, "text_dim": 24, "action_hidden": 24}
SPECS = {
    "flux2_4b": factory.ModelSpec(
        "flux2", Flux2Config(hidden=32, axes=(4, 4, 4, 4), double=1, single=2, **FLUX2), TextSpec((1, 2))
    ),
    "flux2_9b": factory.ModelSpec(
        "flux2", Flux2Config(hidden=48, axes=(6, 6, 6, 6), double=2, single=2, **FLUX2), TextSpec((1, 2))
    ),
    "omnigen2": factory.ModelSpec(
        "omnigen2",
        OmniGen2Config(
            hidden=24, heads=4, kv_heads=2, axes=(2, 2, 2), layers=2, refiner_layers=1, multiple_of=8, channels=4,
            text_dim=16, action_hidden=16, action_multiple_of=8,
        ),
        VLTextSpec(),
    ),
    "ovis_u1": factory.ModelSpec(
        "ovis_u1",
        OvisU1Config(hidden=24, heads=2, axes=(4, 4, 4), double=1, single=2, channels=16, text_dim=16),
        OvisTextSpec(
            VisionConfig(
                vocab=20, hidden=8, inner=16, layers=1, heads=2, image_size=28, min_pixels=784, max_pixels=3136
            )
        ),
    ),
}  # fmt: skip
"""Numbers of what `publish` writes. The 9B's is in diffusers' naming, in two files."""

LEVELS = (4, 8, 8, 8)


def sizes(name: str, folder: Path) -> Path:
    """The numbers as a YAML file, as a user of a backbone of another size has them."""
    path = folder / f"{name}.yaml"
    spec = json.loads(json.dumps(dataclasses.asdict(SPECS[name])))
    path.write_text(yaml.safe_dump({key: spec[key] for key in ("variant", "network", "text")}))
    return path


def backbone(name: str) -> dict[str, Tensor]:
    """Random weights under the authors' names."""
    torch.manual_seed(1)
    network = factory.build_network(SPECS[name])
    return {key: 0.2 * torch.randn_like(tensor) for key, tensor in network.video.state_dict().items()}


def publish(name: str, folder: Path) -> Path:
    """Write the repository of a backbone."""
    folder.mkdir(parents=True)
    {"omnigen2": _omnigen2, "ovis_u1": _ovis_u1}.get(name, _flux2)(folder, backbone(name))
    if name == "flux2_9b":
        _as_diffusers(folder / "transformer")
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: small-licence\n---\n")
    return folder


def words():
    """A tokenizer to which the prompt is a few words, not a hundred bytes."""
    return small_text([PROMPT, "lift the tray with both hands"], TextSpec((1,)), hidden=8).tokenizer


def _flux2(folder: Path, weights: dict[str, Tensor]) -> None:
    (folder / "transformer").mkdir()
    save_file(weights, folder / "transformer" / "flux-2.safetensors")
    AutoencoderKLFlux2(
        block_out_channels=LEVELS, layers_per_block=1, latent_channels=4, norm_num_groups=4
    ).save_pretrained(folder / "vae")
    small_text(["lift the tray"], TextSpec((1, 2)), hidden=12).save(folder)


def _as_diffusers(folder: Path) -> None:
    from safetensors.torch import load_file

    theirs = {}
    for name, tensor in load_file(folder / "flux-2.safetensors").items():
        tensor = torch.cat(tensor.chunk(2)[::-1]) if name.startswith(SWAPPED) else tensor
        names = diffusers_names(name)
        theirs |= dict(zip(names, (part.contiguous() for part in tensor.chunk(len(names))), strict=True))
    (folder / "flux-2.safetensors").unlink()
    for i, chosen in enumerate((list(theirs)[::2], list(theirs)[1::2])):
        save_file({key: theirs[key] for key in chosen}, folder / f"diffusion_pytorch_model-{i}-of-2.safetensors")


def _kl(latent_channels: int, **changes: object) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=LEVELS, layers_per_block=1, latent_channels=latent_channels, norm_num_groups=4, **changes,
    )  # fmt: skip


def _omnigen2(folder: Path, weights: dict[str, Tensor]) -> None:
    (folder / "transformer").mkdir()
    save_file(weights, folder / "transformer" / "diffusion_pytorch_model.safetensors")
    _kl(4, use_quant_conv=False, use_post_quant_conv=False).save_pretrained(folder / "vae")
    tokenizer = words()
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "rope_parameters": rope,
    }  # fmt: skip
    seen = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    config = Qwen2_5_VLConfig(text_config=text, vision_config={**seen, "fullatt_block_indexes": [0]})
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder / "mllm")
    tokenizer.save_pretrained(folder / "processor")


def _ovis_u1(folder: Path, weights: dict[str, Tensor]) -> None:
    tokenizer, vae = words(), _kl(4)
    tokenizer.save_pretrained(folder)
    llm = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer), hidden_size=8, intermediate_size=16, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, head_dim=4, tie_word_embeddings=False,
        )
    )  # fmt: skip
    vision = SPECS["ovis_u1"].text.vision
    parts = {
        "visual_generator.backbone.": weights,
        "visual_generator.vae.": vae.state_dict(),
        "llm.": llm.state_dict(),
        "visual_tokenizer.": VisualTokenizer(vision).state_dict(),
        "visual_tokenizer.backbone.trunk.post_trunk_norm.": {"weight": torch.ones(vision.hidden)},
        "vte.": {"weight": torch.randn(vision.vocab, 8)},
    }
    whole = {prefix + key: tensor.contiguous() for prefix, state in parts.items() for key, tensor in state.items()}
    for i, chosen in enumerate((list(whole)[::2], list(whole)[1::2])):
        save_file({key: whole[key] for key in chosen}, folder / f"model-{i}-of-2.safetensors")
    config = {
        "model_type": "ovis_u1",
        "llm_config": llm.config.to_dict(),
        "visual_generator_config": {"vae_config": {"_class_name": "AutoencoderKL", **vae.config}},
    }
    (folder / "config.json").write_text(json.dumps(config, default=str))
