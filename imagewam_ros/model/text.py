# SPDX-License-Identifier: Apache-2.0
"""Frozen text encoder: a transformers Qwen3, cut after the last layer that is read.

Features are hidden states of some layers, side by side (layer-major). Encoded once per
instruction, valid tokens only. Source: docs/model.md, section 1.6.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

from imagewam_ros.core.errors import CheckpointError, ConfigError
from imagewam_ros.model.frozen import FrozenModel, load_tokenizer, load_whole, whole_prompt
from imagewam_ros.model.protocol import Context


@dataclass(frozen=True)
class TextSpec:
    """Which hidden states are read; k is the output of the k-th layer, counted from 1."""

    layers: tuple[int, ...] = (9, 18, 27)

    def __post_init__(self) -> None:
        if not self.layers or min(self.layers) < 1:
            raise ConfigError(f"text layers count from 1 and at least one is read, found {self.layers}")


class QwenText:
    """Qwen3 with its tokenizer. Satisfies `protocol.TextEncoder`."""

    def __init__(
        self,
        model: Qwen3Model,
        tokenizer: PreTrainedTokenizerFast,
        spec: TextSpec,
        max_length: int,
        read: Callable[[], Any] | None = None,
    ) -> None:
        """`read` makes the model again after a `release`."""
        self.tokenizer = tokenizer
        self.spec = spec
        self.max_length = max_length
        self._frozen = FrozenModel(_cut(model, max(spec.layers)), read)

    @classmethod
    def load(cls, directory: Path, spec: TextSpec, max_length: int, dtype: torch.dtype = torch.float32) -> "QwenText":
        """Load `text_encoder/` and `tokenizer/` of a checkpoint directory. Raises CheckpointError."""
        read = partial(_read, directory / "text_encoder", spec, dtype)
        text = cls(read(), load_tokenizer(directory / "tokenizer"), spec, max_length, read)
        text._check_template(directory / "tokenizer")
        return text

    @property
    def model(self) -> Any:
        """The language model, read again if it was released."""
        return self._frozen.model

    def release(self) -> bool:
        """See `protocol.TextEncoder`."""
        return self._frozen.release()

    @property
    def width(self) -> int:
        """Width of the features."""
        return int(self.model.config.hidden_size) * len(self.spec.layers)

    @torch.no_grad()
    def encode(self, prompt: str) -> Tensor:
        """Features (L, ctx) of the prompt's tokens. Raises ConfigError when they are too many."""
        ids = whole_prompt(self.tokenizer(self._chat(prompt))["input_ids"], self.max_length)
        states = self.model(
            input_ids=torch.tensor([ids], device=self.model.device), output_hidden_states=True, use_cache=False
        ).hidden_states
        return torch.cat([states[layer][0] for layer in self.spec.layers], -1)

    def condition(self, tokens: Tensor, images: Tensor) -> Context:
        """The features as they are: this encoder does not see the image."""
        return Context(tokens[None])

    def to(self, device: torch.device | str) -> "QwenText":
        """Move to a device."""
        self._frozen.to(device)
        return self

    def save(self, directory: Path, dtype: torch.dtype | None = None) -> None:
        """Write `text_encoder/` and `tokenizer/`."""
        model: Any = Qwen3Model(self.model.config)  # with a final norm again, as the library's loader expects
        model.load_state_dict(self.model.state_dict(), strict=False)
        model.to(dtype or self.model.dtype).save_pretrained(directory / "text_encoder")
        self.tokenizer.save_pretrained(directory / "tokenizer")

    def _chat(self, prompt: str) -> str:
        chat: Any = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        return str(chat)

    def _check_template(self, folder: Path) -> None:
        """Raise CheckpointError unless the chat template passes a prompt on: an empty one would lose every word."""
        probe = "lift the tray"
        try:
            chat = self._chat(probe)
        except (ValueError, TemplateError) as error:
            raise CheckpointError(f"the chat template in {folder} cannot be used: {error}; copy it again") from error
        if probe not in chat:
            raise CheckpointError(f"the chat template in {folder} loses the prompt; copy it again")


def _read(folder: Path, spec: TextSpec, dtype: torch.dtype) -> Any:
    """Read as many layers as are needed. Raises CheckpointError."""
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"no text encoder in {folder}; expected a transformers directory with config.json")
    try:
        config = Qwen3Config.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot load the text encoder in {folder}: {error}") from error
    if config.num_hidden_layers < max(spec.layers):
        raise CheckpointError(
            f"{folder} has {config.num_hidden_layers} layers, layer {max(spec.layers)} is read; "
            "use the text encoder that the checkpoint was trained with"
        )
    config.num_hidden_layers = max(spec.layers)
    config.layer_types = (config.layer_types or [])[: max(spec.layers)]
    return _cut(load_whole(Qwen3Model, folder, "text encoder", config=config, dtype=dtype), max(spec.layers))


def small_text(
    corpus: Sequence[str], spec: TextSpec, hidden: int = 32, seed: int = 0, max_length: int = 64
) -> QwenText:
    """A small random Qwen3 with a byte-level tokenizer fitted to `corpus`; it reads any text.

    Random features serve where a few instructions must only be told apart.
    """
    tokenizer = _fit_tokenizer(corpus)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=max(spec.layers),
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=hidden // 2,
        max_position_embeddings=512,
        initializer_range=0.3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3Model(config)
    return QwenText(model, tokenizer, spec, max_length)


def _fit_tokenizer(corpus: Sequence[str]) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1024, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        chat_template="{% for message in messages %}{{ message['content'] }}{% endfor %}",
    )


def _cut(model: Any, layers: int) -> Any:
    """Keep `layers` layers and no final norm: the last hidden state is a layer's plain output."""
    model.layers = model.layers[:layers]
    model.config.num_hidden_layers = layers
    model.config.layer_types = model.config.layer_types[:layers]
    model.norm = nn.Identity()
    return model
