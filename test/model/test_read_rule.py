# SPDX-License-Identifier: Apache-2.0
"""Who reads whom, measured on the outputs: change one group of tokens and see exactly the groups that may change."""

import dataclasses

import pytest
import small_networks
import torch
from small_networks import BACKBONES, HORIZON

from imagewam_ros.core.contract import Denoising
from imagewam_ros.model.mot import READS, read_mask
from imagewam_ros.model.protocol import Context


@pytest.fixture(scope="module", params=BACKBONES)
def network(request):
    return small_networks.network(request.param)


@pytest.fixture(scope="module")
def batch(network):
    return small_networks.batch(network)


def spoil_text(batch):
    return dataclasses.replace(batch, context=Context(-batch.context.tokens, batch.context.mask))


SPOIL = {
    "text": spoil_text,
    "proprio": lambda b: dataclasses.replace(b, proprio=-b.proprio),
    "reference": lambda b: dataclasses.replace(b, reference=-b.reference),
    "target": lambda b: dataclasses.replace(b, target_noise=-b.target_noise),
    "action": lambda b: dataclasses.replace(b, action_noise=-b.action_noise),
}
GROUP = {"text": "prefix", "proprio": "prefix", "reference": "prefix", "target": "target", "action": "action"}


def run(network, batch):
    with torch.no_grad():
        return network.joint_forward(batch)


def moved(first, second, least=1e-4):
    return bool((first - second).abs().max() > least)


@pytest.mark.parametrize("source", SPOIL)
def test_joint_outputs_follow_the_table(network, batch, source):
    before, after = run(network, batch), run(network, SPOIL[source](batch))
    assert moved(before.action, after.action) == (GROUP[source] in READS["action"])
    assert moved(before.video, after.video) == (GROUP[source] in READS["target"])
    if GROUP[source] == "target":
        assert torch.equal(before.action, after.action), "an imagined image must not leak into the actions"
    if GROUP[source] == "action":
        assert torch.equal(before.video, after.video)


@pytest.mark.parametrize("source", ["text", "proprio", "reference"])
def test_every_prefix_group_reaches_the_cached_actions(network, batch, source):
    results = []
    for b in (batch, SPOIL[source](batch)):
        with torch.no_grad():
            cache = network.prefill(b.reference, b.context, b.proprio, HORIZON)
            results.append(network.velocity(b.action_noise, b.action_timestep, cache))
    assert moved(*results)


def test_every_action_row_reads_every_other(network, batch):
    before = run(network, batch).action
    for row in range(HORIZON):
        noise = batch.action_noise.clone()
        noise[:, row] += 3.0
        after = run(network, dataclasses.replace(batch, action_noise=noise)).action
        changed = (after - before).abs().amax((0, 2)) > 1e-6
        assert changed.all(), f"row {row} is not read by rows {(~changed).nonzero().flatten().tolist()}"


def test_samples_of_a_batch_do_not_see_each_other(network, batch):
    alone = dataclasses.replace(
        batch, **{name: getattr(batch, name)[:1] for name in SLICED}, context=Context(*(p[:1] for p in batch.context))
    )
    together, single = run(network, batch), run(network, alone)
    assert torch.allclose(together.action[:1], single.action, atol=1e-5)
    assert torch.allclose(together.video[:1], single.video, atol=1e-5)


SLICED = (
    "reference", "proprio", "actions", "action_noise", "action_timestep", "target", "target_noise", "target_timestep",
)  # fmt: skip


def test_pads_of_the_text_are_never_read(network, batch):
    mask = batch.context.mask.clone()
    mask[:, -2:] = False
    short = dataclasses.replace(batch, context=Context(batch.context.tokens, mask))
    garbage = batch.context.tokens.clone()
    garbage[:, -2:] = 50.0
    spoiled = dataclasses.replace(batch, context=Context(garbage, mask))
    first, second = run(network, short), run(network, spoiled)
    assert torch.equal(first.action, second.action) and torch.equal(first.video, second.video)
    assert moved(first.action, run(network, batch).action), "the last two tokens matter when they are valid"


def test_cached_equals_joint_for_every_time(network, batch):
    with torch.no_grad():
        cache = network.prefill(batch.reference, batch.context, batch.proprio, HORIZON)
        for timestep in (0.0, 1.0, 357.0, 999.0, 1000.0):
            times = torch.full((2,), timestep)
            b = dataclasses.replace(batch, actions=torch.zeros_like(batch.actions), action_timestep=times)
            cached = network.velocity(timestep / 1000 * b.action_noise, times, cache)
            assert torch.allclose(cached, run(network, b).action, atol=2e-5), timestep


def test_denoising_leaves_noise_and_prefix_as_they_were(network, batch):
    plan = network.plan(Denoising(3))
    noise = batch.action_noise.clone()
    with torch.no_grad():
        cache = network.prefill(batch.reference, batch.context, batch.proprio, HORIZON)
        first = network.denoise(noise, cache, plan)
        assert torch.equal(noise, batch.action_noise)
        assert torch.equal(network.denoise(noise, cache, plan), first), "a second chunk from the same prefix"


def test_expert_works_at_other_horizons(network, batch):
    with torch.no_grad():
        for horizon in (1, 9):
            cache = network.prefill(batch.reference, batch.context, batch.proprio, horizon)
            found = network.velocity(torch.zeros(2, horizon, 3), batch.action_timestep, cache)
            assert found.shape == (2, horizon, 3) and found.isfinite().all()


@pytest.mark.parametrize("order", [("prefix", "target", "action"), ("action", "prefix"), ("target", "prefix")])
def test_matrix_agrees_with_the_table_token_by_token(order):
    sizes = {name: 2 + i for i, name in enumerate(order)}
    owners = [name for name, size in sizes.items() for _ in range(size)]
    wanted = [[column in READS[row] for column in owners] for row in owners]
    assert read_mask(sizes).tolist() == wanted


def test_nobody_is_blind_and_the_prefix_is_closed():
    assert all(group in reads for group, reads in READS.items()), "each group reads itself"
    assert READS["prefix"] == ("prefix",), "or its keys and values could not be computed first"
