# SPDX-License-Identifier: Apache-2.0
"""Text side of OmniGen2: the language model of a Qwen2.5-VL, which never sees the image.

The plain prompt without chat template; the last hidden state after the final norm. Source:
docs/variants.md, section 2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel

from imagewam_ros.core.errors import CheckpointError
from imagewam_ros.model.frozen import FrozenModel, load_tokenizer, load_whole, whole_prompt
from imagewam_ros.model.protocol import Context


@dataclass(frozen=True)
class VLTextSpec:
    """keep_pad adds the features of one pad token behind the text: checkpoints whose proprio token
    comes after the pads have that row in their joint sequence.
    """

    keep_pad: bool = False


class QwenVLText:
    """Language model with its tokenizer. Satisfies `protocol.TextEncoder`."""

    def __init__(
        self, model: Any, tokenizer: Any, spec: VLTextSpec, max_length: int, read: Callable[[], Any] | None = None
    ) -> None:
        """`read` makes the model again after a `release`."""
        self._frozen = FrozenModel(model, read)
        self.tokenizer, self.spec, self.max_length = tokenizer, spec, max_length

    @classmethod
    def load(
        cls, directory: Path, spec: VLTextSpec, max_length: int, dtype: torch.dtype = torch.float32
    ) -> "QwenVLText":
        """Load `text_encoder/` and `tokenizer/` of a checkpoint directory. Raises CheckpointError."""
        read = partial(_read, directory, dtype)
        return cls(read(), load_tokenizer(directory / "tokenizer"), spec, max_length, read)

    @property
    def model(self) -> Any:
        """The language model, read again if it was released."""
        return self._frozen.model

    def release(self) -> bool:
        """See `protocol.TextEncoder`."""
        return self._frozen.release()

    @torch.no_grad()
    def encode(self, prompt: str) -> Tensor:
        """Features (L, ctx) of the prompt, with one pad row behind when the spec keeps it.

        Raises ConfigError when the prompt is too long.
        """
        ids = whole_prompt(self.tokenizer(prompt)["input_ids"], self.max_length)
        valid = [1] * len(ids)
        if self.spec.keep_pad:
            ids, valid = [*ids, self.tokenizer.pad_token_id], [*valid, 0]
        device = self.model.device
        states: Tensor = self.model(
            input_ids=torch.tensor([ids], device=device),
            attention_mask=torch.tensor([valid], device=device),
            use_cache=False,
        ).last_hidden_state
        return states[0]

    def condition(self, tokens: Tensor, images: Tensor) -> Context:
        """The features as they are: this encoder does not see the image."""
        if not self.spec.keep_pad:
            return Context(tokens[None])
        mask = torch.arange(len(tokens), device=tokens.device) < len(tokens) - 1
        return Context(tokens[None], mask[None])

    def to(self, device: torch.device | str) -> "QwenVLText":
        """Move to a device."""
        self._frozen.to(device)
        return self

    def save(self, directory: Path, dtype: torch.dtype | None = None) -> None:
        """See `protocol.TextEncoder`."""
        self.model.save_pretrained(directory / "text_encoder")
        self.tokenizer.save_pretrained(directory / "tokenizer")


def _read(directory: Path, dtype: torch.dtype) -> Any:
    """Read the language model. Raises CheckpointError."""
    try:
        config = Qwen2_5_VLTextConfig.from_pretrained(directory / "text_encoder", local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot load the text encoder in {directory}: {error}") from error
    return load_whole(Qwen2_5_VLTextModel, directory / "text_encoder", "text encoder", config=config, dtype=dtype)
