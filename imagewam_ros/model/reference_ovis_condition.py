# SPDX-License-Identifier: Apache-2.0
# mypy: disable-error-code="no-any-return"
"""Reference directories of Ovis-U1's condition encoder: from token ids on, because their tokenizer is a stand-in."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen3Model

from imagewam_ros.core.errors import CheckpointError
from imagewam_ros.model.ovis_condition import OvisCondition, read_reference_config
from imagewam_ros.model.ovis_vision import patchify
from imagewam_ros.model.protocol import Context
from imagewam_ros.model.reference import CLOSE, EXACT, Reference, Rule, read_tensors

UNUSED = ("llm.lm_head.", "visual_tokenizer.backbone.trunk.post_trunk_norm.")
"""Published weights that the features do not pass."""


class OvisConditionReference(Reference):
    """See `reference.Reference`."""

    inputs = ("image", "input_ids", "attention_mask")

    def build(self) -> None:
        """See `reference.Reference`."""
        state = read_tensors(self.directory / "ovis_condition.safetensors")
        kept = {n.replace("llm.model.", "llm."): t for n, t in state.items() if not n.startswith(UNUSED)}
        try:
            vocabulary = kept["llm.embed_tokens.weight"].shape[0]
            vision, llm = read_reference_config({**self.config["cond"], "vocab": vocabulary})
        except KeyError as error:
            raise CheckpointError(f"{self.directory} lacks {error}; see the layout of the test data") from None
        self.model: Any = OvisCondition(vision, Qwen3Model(llm)).eval()
        wrong = self.model.load_state_dict(kept, strict=False)
        if wrong.missing_keys or wrong.unexpected_keys:
            raise CheckpointError(f"{self.directory / 'ovis_condition.safetensors'} does not fit: {wrong}")
        self.model.to(self.device, self.dtype)

    def rules(self) -> list[Rule]:
        """See `reference.Reference`."""
        return [
            Rule(r"pixel_values", lambda: self.patches[0].flatten(0, 1), CLOSE),
            Rule(r"grid_thws", self.grids, EXACT),
            Rule(r"visual_features", lambda: self.features.flatten(0, 1), CLOSE),
            Rule(r"visual_probs", self.probabilities, CLOSE),
            Rule(r"inputs_embeds", lambda: self.merged[0], CLOSE),
            Rule(r"merged_mask", lambda: self.merged[1], EXACT),
            Rule(r"text_hidden_states", lambda: self.text.tokens, CLOSE),
            Rule(r"text_attention_mask", lambda: self.text.mask, EXACT),
            Rule(r"single_text_hidden_states", lambda: self.single.tokens, CLOSE),
            Rule(r"single_text_attention_mask", lambda: torch.ones(self.single.tokens.shape[:2]), EXACT),
        ]

    @cached_property
    def patches(self) -> tuple[Tensor, tuple[int, int]]:
        """Patches and their grid."""
        return patchify(self.expected["image"], self.model.visual_tokenizer.config)

    def grids(self) -> Tensor:
        """(time, rows, columns) of each image."""
        return torch.tensor([[1, *self.patches[1]]] * len(self.expected["image"]))

    @cached_property
    def features(self) -> Tensor:
        """Merged features before the head."""
        with torch.no_grad():
            return self.model.visual_tokenizer.features(*self.patches)

    def probabilities(self) -> Tensor:
        """Softmax over the vocabulary that a head reaches, of the features that the directory holds."""
        stored = self.expected.get("visual_features", self.features.flatten(0, 1))
        with torch.no_grad():
            found = self.model.visual_tokenizer.probabilities(stored)
        return found[:, : self.expected["visual_probs"].shape[1]]

    @cached_property
    def merged(self) -> tuple[Tensor, Tensor]:
        """Embeddings and validity."""
        with torch.no_grad():
            probabilities = self.model.visual_tokenizer.probabilities(self.features)
            return self.model.merge(self.expected["input_ids"], probabilities, self.expected["attention_mask"].bool())

    @cached_property
    def text(self) -> Context:
        """Features of the padded batch."""
        with torch.no_grad():
            return self.model.features(*self.merged)

    @cached_property
    def single(self) -> Context:
        """Features of the first sample alone, without pads."""
        ids = self.expected["input_ids"][:1, self.expected["attention_mask"][0].bool()]
        with torch.no_grad():
            return self.model(ids, self.expected["image"][:1])
