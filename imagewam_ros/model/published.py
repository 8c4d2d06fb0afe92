# SPDX-License-Identifier: Apache-2.0
"""Published image editors: where they keep their backbone and frozen encoders, and how these come into our directory.

FLUX.2 and OmniGen2 are diffusers pipelines, a folder for each part. Ovis-U1 is one model whose files hold
everything; it is taken apart. Source: the repositories' layout; for Ovis-U1 its config.json.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from imagewam_ros.core.errors import CheckpointError
from imagewam_ros.core.json_file import write_json
from imagewam_ros.model.backbone import published_tensors
from imagewam_ros.model.checkpoint import audit
from imagewam_ros.model.factory import ModelSpec
from imagewam_ros.model.ovis_vision import VisualTokenizer
from imagewam_ros.model.safetensors_stream import Lazy, write

PIPELINE = (
    ("autoencoder", ("vae",)),
    ("text_encoder", ("text_encoder", "mllm")),
    ("tokenizer", ("tokenizer", "processor")),
)
"""Our folders and the pipelines' (FLUX.2's, then OmniGen2's where they differ)."""

TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json"),
    *("special_tokens_map.json", "chat_template.jinja"),
)
"""Files of a tokenizer, of which one has some."""

FILES = tuple(f"{folder}/*{end}" for folder in ("transformer", *(name for _, theirs in PIPELINE for name in theirs))
              for end in (".safetensors", ".json", ".txt", ".jinja"))  # fmt: skip
"""What is fetched of a pipeline's repository; the single files beside its folders hold the same weights again."""

OVIS_FILES = ("model*.safetensors", "config.json", *TOKENIZER)
"""What is fetched of Ovis-U1's."""

VAE, LANGUAGE, VISION, EMBEDDING = "visual_generator.vae.", "llm.model.", "visual_tokenizer.", "vte."
"""What Ovis-U1 puts before the names of its autoencoder, language model, visual tokenizer and its embedding."""

STATES_READ = {"omnigen2": 1, "ovis_u1": 2}
"""Hidden states of the language model side by side in a text feature."""

UNREAD = "backbone.trunk.post_trunk_norm."
"""Weights of the visual tokenizer that the features do not pass."""


def weights_of(source: Path) -> Path:
    """Where the backbone's safetensors lie: the pipeline's own folder, or `source` itself."""
    return source / "transformer" if (source / "transformer").is_dir() else source


def copy_encoders(spec: ModelSpec, source: Path, out: Path) -> None:
    """Copy the frozen parts of a published repository into our directory. Raises CheckpointError."""
    if spec.variant == "ovis_u1":
        _take_apart(spec, source, out)
    else:
        _copy_pipeline(source, out)
    _check_width(spec, source, out / "text_encoder" / "config.json")


def _copy_pipeline(source: Path, out: Path) -> None:
    for ours, theirs in PIPELINE:
        found = [source / name for name in theirs if (source / name).is_dir()]
        if not found:
            raise CheckpointError(
                f"no {' or '.join(f'{name}/' for name in theirs)} in {source}; expected a pipeline folder with vae, "
                "text_encoder, tokenizer (of OmniGen2: vae, mllm, processor)"
            )
        shutil.copytree(found[0], out / ours)


def _take_apart(spec: ModelSpec, source: Path, out: Path) -> None:
    """Write Ovis-U1's autoencoder, language model, visual tokenizer and tokenizer to files of their own."""
    tensors, config = published_tensors(source), _config(source / "config.json")
    _write_part(out / "autoencoder", "diffusion_pytorch_model", _behind(VAE, tensors, source), config["vae"])
    _write_part(out / "text_encoder", "model", _behind(LANGUAGE, tensors, source), config["llm"])
    vision = {n: t for n, t in _behind(VISION, tensors, source).items() if not n.startswith(UNREAD)}
    with torch.device("meta"):
        audit({name: tensor.shape for name, tensor in vision.items()}, VisualTokenizer(spec.text.vision), source)
    seen = {VISION + name: tensor for name, tensor in vision.items()}
    embedding = {EMBEDDING + name: tensor for name, tensor in _behind(EMBEDDING, tensors, source).items()}
    write(out / "visual_tokenizer.safetensors", seen | embedding)
    files = [source / name for name in TOKENIZER if (source / name).is_file()]
    if not files:
        raise CheckpointError(f"no tokenizer in {source}; expected {TOKENIZER[0]} or {TOKENIZER[2]} beside config.json")
    (out / "tokenizer").mkdir()
    for file in files:
        shutil.copy(file, out / "tokenizer" / file.name)


def _behind(prefix: str, tensors: Mapping[str, Lazy], source: Path) -> dict[str, Lazy]:
    found = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if not found:
        raise CheckpointError(f"no weights {prefix}* in {source}; expected all files of the published Ovis-U1")
    return found


def _config(path: Path) -> dict[str, Any]:
    """Configurations of Ovis-U1's autoencoder ("vae") and language model ("llm"). Raises CheckpointError."""
    try:
        data = json.loads(path.read_text(encoding="utf8"))
        language = {**data["llm_config"], "architectures": ["Qwen3Model"]}
        return {"vae": data["visual_generator_config"]["vae_config"], "llm": language}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} does not tell the numbers of Ovis-U1's autoencoder and language model ({error!r}); copy it again"
        ) from None


def _write_part(folder: Path, name: str, tensors: Mapping[str, Lazy], config: Mapping[str, Any]) -> None:
    folder.mkdir()
    write(folder / f"{name}.safetensors", tensors)
    write_json(folder / "config.json", config)


def _check_width(spec: ModelSpec, source: Path, path: Path) -> None:
    """Raise CheckpointError where the text encoder's features are not as wide as the network's text input."""
    read = len(spec.text.layers) if spec.variant == "flux2" else STATES_READ[spec.variant]
    config = json.loads(path.read_text(encoding="utf8")) if path.is_file() else {}
    width = config.get("text_config", config).get("hidden_size")
    if width is not None and read * width != spec.network.text_dim:
        raise CheckpointError(
            f"the text encoder in {source} gives {read} x {width} numbers per word, the backbone reads "
            f"{spec.network.text_dim}; take both from one repository"
        )
