# SPDX-License-Identifier: Apache-2.0
"""Loading of frozen encoders through the libraries made for them: whole, from safetensors, without foreign code.

Left alone, those libraries fill missing weights with random numbers and only warn, fall back to
pickled files, and ask on the terminal whether to run code that lies beside a tokenizer.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from imagewam_ros.core.errors import CheckpointError, ConfigError

NAMED = 5
"""Missing weights that an error names; the rest are counted."""
UNREAD = ("num_batches_tracked",)
"""Endings of weights that are in files for training only."""


class FrozenModel:
    """A model that is never trained; `read` makes it again after it was dropped from memory."""

    def __init__(self, model: Any, read: Callable[[], Any] | None = None) -> None:
        self._model = model.eval().requires_grad_(False)
        self._read, self._device = read, model.device

    @property
    def model(self) -> Any:
        """The model, read again if it was released. Raises CheckpointError."""
        if self._model is None:
            assert self._read is not None
            self._model = self._read().eval().requires_grad_(False).to(self._device)
        return self._model

    def release(self) -> bool:
        """Drop the model from memory until it is asked for. False where it came from no directory; then it stays."""
        if self._read is None:
            return False
        self._model = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()  # for other processes too
        return True

    def to(self, device: torch.device | str) -> None:
        """Move to a device, once it is there."""
        self._device = torch.device(device)
        if self._model is not None:
            self._model.to(device)


def load_whole(cls: Any, folder: Path, what: str, without: str = "", **options: Any) -> Any:
    """Load a diffusers or transformers model from its directory. Raises CheckpointError unless no weight lacks.

    The submodule `without` may lack as a whole; it is None then.
    """
    files = sorted(path.name for path in folder.glob("*") if path.suffix in (".safetensors", ".bin", ".pt", ".ckpt"))
    if not any(name.endswith(".safetensors") for name in files):
        raise CheckpointError(
            f"cannot load the {what} in {folder}: no safetensors file (found {', '.join(files) or 'no weights'}); "
            "copy it again, or convert it: pickled weights are not read"
        )
    try:
        model, report = cls.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"cannot load the {what} in {folder}: {error}") from error
    missing = {name for name in report["missing_keys"] if not name.endswith(UNREAD)}
    part = {name for name in model.state_dict() if without and name.startswith(f"{without}.")}
    if part and part <= missing:
        setattr(model, without, None)
        missing -= part
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        named = ", ".join(sorted(missing)[:NAMED]) + more
        raise CheckpointError(f"the {what} in {folder} lacks {named}; copy it again, or write the checkpoint again")
    return model


def load_tokenizer(folder: Path) -> Any:
    """Load a transformers tokenizer, never with code of its own. Raises CheckpointError."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"cannot load the tokenizer in {folder}: {error}; copy it again (code beside it is never run)"
        ) from error


def whole_prompt(ids: Sequence[int], limit: int) -> list[int]:
    """Return the token ids of a prompt. Raises ConfigError when they are more than `limit`: half a prompt misleads."""
    if len(ids) > limit:
        raise ConfigError(
            f"the instruction is too long: {len(ids)} tokens with its prompt, this checkpoint reads {limit}; shorten it"
        )
    return list(ids)
