# SPDX-License-Identifier: Apache-2.0
"""Observation in, action chunk out: one checkpoint with its contract, on one device.

Rows of relative joints are differences from the positions measured at the observation, so a
late chunk still says where the joints shall be, at the times that its stamp implies.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from imagewam_ros.core.contract import Contract
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import StaleObservation
from imagewam_ros.core.schema import ActionChunk, Observation
from imagewam_ros.core.stats import Statistics, normaliser
from imagewam_ros.model.checkpoint import load_checkpoint
from imagewam_ros.model.flow import action_noise
from imagewam_ros.model.preprocess import mosaic_pixels
from imagewam_ros.model.protocol import Instruction, PrefixCache, WorldActionModel


class Policy:
    """A loaded checkpoint. Not for several threads at once: the prefix cache is reused."""

    def __init__(
        self,
        model: WorldActionModel,
        contract: Contract,
        statistics: Mapping[str, Statistics],
        device: str = "cpu",
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Wrap `model`; `clock` in s measures inference and nothing else."""
        self.contract = contract
        self._model, self._device, self._clock = model, device, clock
        self._state = normaliser(contract.normalisation, statistics["state"])
        self._action = normaliser(contract.normalisation, statistics["action"])
        self._relative = np.array(contract.relative)
        self._instructions: dict[str, Instruction] = {}
        self._cache: PrefixCache | None = None
        self._sequence = 0
        with torch.inference_mode():
            self._plan = model.plan(contract.denoising)

    @classmethod
    def load(cls, directory: Path, robot: Embodiment | None = None, device: str = "cpu") -> "Policy":
        """Load a checkpoint directory, for `robot` when given.

        Raises CheckpointError when it cannot be read and EmbodimentMismatch when it was made for
        other joints or cameras.
        """
        checkpoint = load_checkpoint(directory, device=device)
        if robot is not None:
            checkpoint.contract.check(robot)
        return cls(checkpoint.model, checkpoint.contract, checkpoint.statistics, device)

    def set_instruction(self, text: str) -> None:
        """Encode an instruction ahead of its first observation."""
        if text not in self._instructions:
            with torch.inference_mode():
                self._instructions = {text: self._model.encode_instruction(text)}

    def infer(self, observation: Observation, seed: int = 0, ready_ns: int = 0) -> ActionChunk:
        """Return the chunk that follows `observation`, denoised from the noise that `seed` stands for.

        ready_ns is copied into the chunk. Raises ConfigError for a missing camera or image of
        another kind, StaleObservation when the number of joints differs or one is not finite.
        """
        positions = observation.positions
        if positions.size != len(self.contract.joint_names) or not np.isfinite(positions).all():
            raise StaleObservation(
                f"expected {len(self.contract.joint_names)} finite joint positions, found {positions.tolist()}; "
                "are all joints published?"
            )
        self.set_instruction(observation.instruction)
        start = self._clock()
        actions = self._denoise(observation, seed)
        self._sequence += 1
        return ActionChunk(
            stamp_ns=observation.stamp_ns,
            period_ns=self.contract.period_ns,
            joint_names=self.contract.joint_names,
            positions=actions,
            first_row_offset_periods=self.contract.first_row_offset_periods,
            sequence=self._sequence,
            ready_ns=ready_ns,
            instruction_id=observation.instruction_id,
            contract_hash=self.contract.hash,
            seed=seed,
            denoise_steps=self.contract.denoising.steps,
            inference_s=self._clock() - start,
        )

    @torch.inference_mode()
    def _denoise(self, observation: Observation, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """Targets (rows, joints) in rad and m."""
        pixels = mosaic_pixels(observation.images, self.contract.mosaic, self._device)
        proprio = torch.as_tensor(self._state.forward(observation.positions), dtype=torch.float32, device=self._device)
        instruction = self._instructions[observation.instruction]
        self._cache = self._model.prefill(pixels, proprio[None], instruction, self._plan, self._cache)
        noise = action_noise(seed, self.contract.horizon, len(self.contract.joint_names)).to(self._device)
        normalised = self._model.denoise(noise, self._cache, self._plan)[0].float().cpu().numpy()
        actions = self._action.inverse(normalised.astype(np.float64))
        return actions + np.where(self._relative, observation.positions, 0.0)
