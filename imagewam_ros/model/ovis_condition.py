# SPDX-License-Identifier: Apache-2.0
"""Condition encoder of Ovis-U1: a language model that reads the instruction and sees the image.

Because it sees the image it runs at every observation; the instruction is only tokenised once.
Source: docs/variants.md, section 1.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3Model

from imagewam_ros.core.config import build
from imagewam_ros.core.errors import CheckpointError
from imagewam_ros.model.frozen import load_tokenizer, load_whole, whole_prompt
from imagewam_ros.model.ovis_vision import VisionConfig, VisualTokenizer
from imagewam_ros.model.protocol import Context

IMAGE_START, IMAGE, IMAGE_END = -301, -300, -302
"""Placeholders among the token ids (Source: Ovis)."""

FIRST_INDICATOR = -5
"""Row of the visual embedding, from its end, that stands for IMAGE_START; IMAGE_END has the next one."""

BEFORE, AFTER = "<|im_start|>user\n", "<|im_end|>\n"


@dataclass(frozen=True)
class OvisTextSpec:
    """Numbers of the visual tokenizer; the language model's are in its own config.json."""

    vision: VisionConfig = dataclasses.field(default_factory=VisionConfig)


class OvisCondition(nn.Module):
    """Visual tokenizer, visual embedding and language model."""

    def __init__(self, vision: VisionConfig, llm: Any) -> None:
        super().__init__()
        self.visual_tokenizer = VisualTokenizer(vision)
        self.vte = nn.Embedding(vision.vocab, llm.config.hidden_size)
        self.llm = llm

    def forward(self, ids: Tensor, images: Tensor, mask: Tensor | None = None) -> Context:
        """Features (B, L, 2 hidden) of ids (B, S) with images (B, 3, H, W); mask (B, S) is True where valid."""
        embeds, merged = self.merge(ids, self.visual_tokenizer(images), mask)
        return self.features(embeds, merged)

    def merge(self, ids: Tensor, probabilities: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Embeddings (B, L, hidden) with the visual tokens (B, n, vocabulary) in place of IMAGE, and their validity."""
        visual = probabilities.to(self.vte.weight.dtype) @ self.vte.weight
        rows, valid = [], []
        for sample, (row, image) in enumerate(zip(ids, visual, strict=True)):
            words = self.llm.embed_tokens(row.clamp(min=0))
            for k, indicator in enumerate((IMAGE_START, IMAGE_END)):
                words = torch.where((row == indicator)[:, None], self.vte.weight[FIRST_INDICATOR + k], words)
            at = int((row == IMAGE).nonzero()[0])
            rows.append(torch.cat([words[:at], image, words[at + 1 :]]))
            if mask is not None:
                own = mask[sample]
                valid.append(torch.cat([own[:at], own.new_ones(len(image)), own[at + 1 :]]))
        return torch.stack(rows), torch.stack(valid) if valid else None

    def features(self, embeds: Tensor, mask: Tensor | None) -> Context:
        """Last hidden state after the final norm, and the one before the last layer, side by side."""
        states = self.llm(
            inputs_embeds=embeds, attention_mask=mask, output_hidden_states=True, use_cache=False
        ).hidden_states
        return Context(torch.cat([states[-1], states[-2]], -1), mask)


class OvisText:
    """Tokenizer and condition encoder. Satisfies `protocol.TextEncoder`."""

    def __init__(self, condition: OvisCondition, tokenizer: Any, spec: OvisTextSpec, max_length: int) -> None:
        self.model = condition.eval().requires_grad_(False)
        self.tokenizer, self.spec, self.max_length = tokenizer, spec, max_length

    @classmethod
    def load(
        cls, directory: Path, spec: OvisTextSpec, max_length: int, dtype: torch.dtype = torch.float32
    ) -> "OvisText":
        """Load `text_encoder/`, `tokenizer/` and `visual_tokenizer.safetensors`. Raises CheckpointError."""
        llm = load_whole(Qwen3Model, directory / "text_encoder", "condition encoder", dtype=dtype)
        tokenizer = load_tokenizer(directory / "tokenizer")
        try:
            state = load_file(directory / "visual_tokenizer.safetensors")
            with torch.device("meta"):
                condition = OvisCondition(spec.vision, llm)
            condition.llm = llm
            missing = condition.load_state_dict({k: v.to(dtype) for k, v in state.items()}, strict=False, assign=True)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(f"cannot load the condition encoder in {directory}: {error}") from error
        wrong = [*missing.unexpected_keys, *(name for name in missing.missing_keys if not name.startswith("llm."))]
        if wrong:
            raise CheckpointError(f"{directory / 'visual_tokenizer.safetensors'} does not fit: {', '.join(wrong)}")
        return cls(condition, tokenizer, spec, max_length)

    def encode(self, prompt: str) -> Tensor:
        """Token ids (L,) with the placeholders of one image. Raises ConfigError when they are too many."""
        before, after = (
            self.tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in (BEFORE, "\n" + prompt.strip() + AFTER)
        )
        ids = [*before, IMAGE_START, IMAGE, IMAGE_END, *after]
        return torch.tensor(whole_prompt(ids, self.max_length), device=self.model.vte.weight.device)

    @torch.no_grad()
    def condition(self, tokens: Tensor, images: Tensor) -> Context:
        """See `protocol.TextEncoder`."""
        context: Context = self.model(tokens.expand(images.shape[0], -1), images.to(self.model.vte.weight.dtype))
        return context

    def release(self) -> bool:
        """False: it sees every image."""
        return False

    def to(self, device: torch.device | str) -> "OvisText":
        """Move to a device."""
        self.model.to(device)
        return self

    def save(self, directory: Path, dtype: torch.dtype | None = None) -> None:
        """See `protocol.TextEncoder`."""
        dtype = dtype or self.model.vte.weight.dtype
        state = {k: v.to(dtype).contiguous() for k, v in self.model.state_dict().items() if not k.startswith("llm.")}
        save_file(state, directory / "visual_tokenizer.safetensors")
        self.model.llm.save_pretrained(directory / "text_encoder")
        self.tokenizer.save_pretrained(directory / "tokenizer")


def read_reference_config(data: dict[str, Any]) -> tuple[VisionConfig, Qwen3Config]:
    """Numbers from a reference directory's `cond`."""
    vision, llm = data["vision"], data["llm"]
    fields = {
        "vocab": vision["vocab"],
        "hidden": vision["hidden"],
        "inner": vision["ffn"],
        "layers": vision["layers"],
        "heads": vision["heads"],
        "image_size": vision["image_size"],
        "patch": vision["patch_size"],
        "norm_eps": vision["rms_norm_eps"],
        "min_pixels": data["min_pixels"],
        "max_pixels": data["max_pixels"],
    }
    config = Qwen3Config(
        hidden_size=llm["hidden"],
        intermediate_size=llm["ffn"],
        num_hidden_layers=llm["layers"],
        num_attention_heads=llm["heads"],
        num_key_value_heads=llm["kv_heads"],
        head_dim=llm["head_dim"],
        rope_parameters={"rope_type": "default", "rope_theta": float(llm["rope_theta"])},
        rms_norm_eps=llm["rms_norm_eps"],
        vocab_size=data["vocab"],
    )
    return build(VisionConfig, fields, json.dumps(data)[:40]), config
