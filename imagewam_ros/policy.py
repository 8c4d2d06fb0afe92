# SPDX-License-Identifier: Apache-2.0
"""Observation in, action chunk out: one checkpoint with its contract, on one device.

The contract says what the model's numbers mean; a `core.spaces.Space` turns them into joint targets.
Relative rows are differences from the positions measured at the observation, so a late chunk still says
where the joints shall be, at the times that its stamp implies.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from imagewam_ros.core.contract import Contract
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import ConfigError, StaleObservation
from imagewam_ros.core.schema import ActionChunk, Observation
from imagewam_ros.core.spaces import JointSpace, Space
from imagewam_ros.core.stats import Statistics, normaliser
from imagewam_ros.model.autoencoder import channels_last
from imagewam_ros.model.checkpoint import load_checkpoint
from imagewam_ros.model.chunking import Committed, soft_weights
from imagewam_ros.model.compiled import compile_network
from imagewam_ros.model.device import explained_memory
from imagewam_ros.model.graph import GraphedPrefill, make_room
from imagewam_ros.model.packed import pack
from imagewam_ros.model.preprocess import mosaic_pixels
from imagewam_ros.model.protocol import Context, Instruction, PrefixCache
from imagewam_ros.model.quantised import check_weights, quantise
from imagewam_ros.model.sampler import Drawn, Sampler, SamplerConfig
from imagewam_ros.model.wam import ImageWam

if TYPE_CHECKING:
    from imagewam_ros.kinematics.arm_space import ArmSpace

MORE_MEMORY = "use a device with more memory, or weights at lower precision"
LESS_MEMORY = "use fewer samples, the sequential denoiser or weights at lower precision"

Rows = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


class Policy:
    """A loaded checkpoint. Not for several threads at once: the prefix cache is reused."""

    def __init__(
        self,
        model: ImageWam,
        contract: Contract,
        statistics: Mapping[str, Statistics],
        device: str = "cpu",
        clock: Callable[[], float] = time.perf_counter,
        sampling: SamplerConfig | None = None,
        space: Space | None = None,
        release_text: bool = False,
    ) -> None:
        """Wrap `model`; `clock` in s measures inference and chooses the steps of a deadline, nothing else.

        `space` is needed where the contract has parts: see `space_of`. release_text as in `load`.
        """
        self.contract = contract
        self._model, self._device, self._clock = model, device, clock
        self._state = normaliser(contract.normalisation, statistics["state"])
        self._action = normaliser(contract.normalisation, statistics["action"])
        self._space = space or JointSpace(contract.relative)
        self._instructions: dict[str, Instruction] = {}
        self._release_text = release_text
        self._state_size = statistics["state"].mean.size
        self._seen: dict[torch.Size, None] = {}
        self._cache: PrefixCache | None = None
        self._sequence = 0
        self.preprocess_s = 0.0
        """Part of the last inference that made inputs of the observation; on a GPU until that was queued."""
        self._sampler = Sampler(model.network, contract.denoising, contract.horizon, sampling or SamplerConfig(), clock)
        graphed = self._sampler.config.cuda_graph
        self._graphs = GraphedPrefill(self._prefill_from, self._sampler.room) if graphed else None
        if self._sampler.config.compile:
            compile_network(model.network)

    @classmethod
    def load(
        cls,
        directory: Path,
        robot: Embodiment | None = None,
        device: str = "cpu",
        sampling: SamplerConfig | None = None,
        weights: str = "full",
        release_text: bool = False,
    ) -> "Policy":
        """Load a checkpoint directory, for `robot` when given, with weights of `model.quantised.WEIGHTS`.

        release_text drops the text encoder from memory whenever an instruction was encoded. The next new one
        reads it from the directory again: seconds, and memory that must be there then.
        Raises CheckpointError when it cannot be read and EmbodimentMismatch when it was made for
        other joints or cameras, ConfigError when it speaks of poses and no robot is given, or when
        this machine cannot have such weights.
        """
        check_weights(weights, torch.device(device))
        with explained_memory(device, MORE_MEMORY):
            checkpoint = load_checkpoint(directory, device=device)
            if robot is not None:
                checkpoint.contract.check(robot)
            if weights != "full":
                quantise(checkpoint.model, checkpoint.contract, weights)
            pack(checkpoint.model.network)
        channels_last(checkpoint.model.codec)
        space = space_of(checkpoint.contract, robot, checkpoint.statistics)
        return cls(
            checkpoint.model,
            checkpoint.contract,
            checkpoint.statistics,
            device,
            sampling=sampling,
            space=space,
            release_text=release_text,
        )

    def set_instruction(self, text: str) -> None:
        """Encode an instruction ahead of its first observation. Raises ConfigError, and CheckpointError on reading."""
        if text not in self._instructions:
            with explained_memory(self._device, MORE_MEMORY):
                self._instructions = {text: self._encode(text)}

    @torch.inference_mode()
    def rehearse(self, text: str) -> None:
        """Do all of a chunk of this instruction and throw it away, so that its first chunk is no slower than others.

        Does nothing for a text as long as one before. Raises ConfigError where a graph or kernel cannot be made.
        """
        self.set_instruction(text)
        instruction, mosaic = self._instructions[text], self.contract.mosaic
        if instruction.tokens.shape in self._seen:
            return
        pixels = torch.zeros(1, 3, mosaic.height, mosaic.width, device=self._device)
        state = torch.zeros(1, self._state_size, device=self._device)
        with explained_memory(self._device, LESS_MEMORY):
            self._cache = self._prefill(pixels, state, instruction)
            self._cache = cache = self._prefill(pixels, state, instruction)
            self._sampler.rehearse(cache)
        self._see(instruction)

    def infer(
        self,
        observation: Observation,
        seed: int = 0,
        ready_ns: int = 0,
        running: ActionChunk | None = None,
        delay_ns: int = 0,
    ) -> ActionChunk:
        """Return the chunk that follows `observation`, denoised from the noise that `seed` stands for.

        ready_ns is copied into the chunk. With chunking, the rows of `running` that are due within
        delay_ns of the observation are committed: they condition the chunk, and it begins with them.
        Raises ConfigError for a missing camera, an image of another kind or too little memory, StaleObservation when
        the number of joints differs or one is not finite, LimitViolation for a pose that cannot be reached.
        """
        positions = observation.positions
        if positions.size != self._space.joints or not np.isfinite(positions).all():
            raise StaleObservation(
                f"expected {self._space.joints} finite joint positions, found {positions.tolist()}; "
                "are all joints published?"
            )
        self.set_instruction(observation.instruction)
        start = self._clock()
        committed = self._committed(observation, running, delay_ns)
        with explained_memory(self._device, LESS_MEMORY):
            drawn = self._denoise(observation, seed, start, committed)
        actions = self._targets(drawn, observation)
        self._sequence += 1
        return ActionChunk(
            stamp_ns=observation.stamp_ns,
            period_ns=self.contract.period_ns,
            joint_names=self.contract.joint_names,
            positions=actions[0],
            first_row_offset_periods=self.contract.first_row_offset_periods,
            sequence=self._sequence,
            ready_ns=ready_ns,
            instruction_id=observation.instruction_id,
            contract_hash=self.contract.hash,
            committed_rows=0 if committed is None else committed.rows,
            spread=actions.std(0).mean(0) if len(actions) > 1 else np.zeros(0),
            seed=seed,
            denoise_steps=drawn.steps,
            inference_s=self._clock() - start,
        )

    @property
    def model(self) -> ImageWam:
        """The network with its encoders, for tools that look inside."""
        return self._model

    def inputs(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """What the model sees of an observation: pixels (1, 3, H, W) in [-1, 1] and state (1, P), normalised."""
        pixels = mosaic_pixels(observation.images, self.contract.mosaic, self._device)
        state = self._state.forward(self._space.state(observation.positions))
        return pixels, torch.as_tensor(state, dtype=torch.float32, device=self._device)[None]

    @torch.inference_mode()
    def encoded(self, text: str) -> Instruction:
        """An instruction as the model reads it; the running one stays encoded. Raises ConfigError when too long."""
        return self._instructions.get(text) or self._encode(text)

    @torch.inference_mode()
    def _encode(self, text: str) -> Instruction:
        instruction = self._model.encode_instruction(text)
        if self._release_text and not self._model.text.release():
            raise ConfigError(
                "this checkpoint's text encoder sees every image and must stay; set release_text to false"
            )
        return instruction

    @torch.inference_mode()
    def _denoise(self, observation: Observation, seed: int, start: float, committed: Committed | None) -> Drawn:
        before = time.perf_counter()
        pixels, proprio = self.inputs(observation)
        self.preprocess_s = time.perf_counter() - before
        instruction = self._instructions[observation.instruction]
        self._cache = self._prefill(pixels, proprio, instruction)
        self._see(instruction)
        return self._sampler.draw(seed, self._cache, start, committed)

    def _see(self, instruction: Instruction) -> None:
        """Note that chunks of this length of text are prepared, as long as their graphs are kept."""
        if instruction.tokens.shape not in self._seen:
            make_room(self._seen)
            self._seen[instruction.tokens.shape] = None

    def _prefill(self, pixels: Tensor, proprio: Tensor, instruction: Instruction) -> PrefixCache:
        if self._graphs is not None:
            return self._graphs(pixels, proprio, self._model.text.condition(instruction.tokens, pixels))
        cache = self._model.prefill(pixels, proprio, instruction, self._sampler.plan, self._cache)
        return self._sampler.room(cache)

    def _prefill_from(self, images: Tensor, proprio: Tensor, tokens: Tensor, cache: PrefixCache | None) -> PrefixCache:
        return self._model.prefill_from(images, proprio, Context(tokens), self._sampler.plan, cache)

    def _targets(self, drawn: Drawn, observation: Observation) -> Rows:
        """Targets (samples, rows, joints) in rad and m."""
        actions = self._action.inverse(drawn.actions.float().cpu().numpy().astype(np.float64))
        return np.stack([self._space.targets(sample, observation.positions) for sample in actions])

    def _committed(self, observation: Observation, running: ActionChunk | None, delay_ns: int) -> Committed | None:
        """Rows of `running` on the time grid of the next chunk; nothing where it has too few left."""
        if running is None or self._sampler.config.chunking == "none":
            return None
        contract = self.contract
        rows = contract.first_row_offset_periods + np.arange(contract.horizon)  # periods after the observation
        index = (rows * contract.period_ns + observation.stamp_ns - running.due_ns(0)) / running.period_ns
        left = int((index <= running.rows - 1).sum())
        count = min(int((rows * contract.period_ns <= delay_ns).sum()), left, contract.horizon - 1)
        if count < 1 or index[0] < 0:
            return None
        columns = running.positions.T
        targets = np.stack([np.interp(index, np.arange(running.rows), column) for column in columns], 1)
        known = self._action.forward(self._space.actions(targets, observation.positions))
        weight = soft_weights(contract.horizon, count, left)
        return Committed(torch.as_tensor(known, dtype=torch.float32), weight, count)


def space_of(contract: Contract, robot: Embodiment | None, statistics: Mapping[str, Statistics]) -> Space:
    """Return the space of a contract on a robot. Raises ConfigError where it needs the robot and has none."""
    if not contract.action:
        return JointSpace(contract.relative)
    if robot is None:
        raise ConfigError("this checkpoint speaks of tools or grippers in its own units; name the robot that it drives")
    return arm_space_of(contract, robot, statistics)


def arm_space_of(contract: Contract, robot: Embodiment, statistics: Mapping[str, Statistics]) -> "ArmSpace":
    """Return the space of a contract with parts on a robot."""
    from imagewam_ros.kinematics.arm_space import ArmSpace  # a policy of joints runs without pinocchio
    from imagewam_ros.kinematics.chains import Chains
    from imagewam_ros.kinematics.description import describe

    poses = any(part.pose for part in (*contract.state, *contract.action))
    means = (statistics["state"].mean, statistics["action"].mean)
    return ArmSpace(contract, robot, Chains(describe(robot), robot) if poses else None, means)
