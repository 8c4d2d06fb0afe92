# SPDX-License-Identifier: Apache-2.0
import pickle

import pytest
import torch

from imagewam_ros.core.errors import CheckpointError
from imagewam_ros.model.official import load_official, network_state, read_official


@pytest.fixture(scope="module")
def official(data):
    return torch.load(data / "flux2_tiny" / "checkpoint.pt", weights_only=True)


@pytest.fixture
def load(flux2, tmp_path):
    def attempt(content):
        torch.save(content, tmp_path / "model.pt")
        return load_official(flux2.empty_network(), tmp_path / "model.pt")

    return attempt


def test_aliases_are_dropped_and_nothing_else(official, flux2):
    state = network_state(official, "model.pt")
    assert set(state) == set(flux2.network.state_dict())
    assert len(official["mot"]) > len(state)


def test_step_is_returned(official, load):
    assert load(official) == official["step"]


def test_dtype_is_converted(data, flux2):
    network = flux2.empty_network()
    load_official(network, data / "flux2_tiny" / "checkpoint.pt", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.bfloat16}


def test_every_missing_and_unexpected_key_is_named(official, load):
    mot = dict(official["mot"])
    del mot["mixtures.action.head.linear.weight"]
    mot["mixtures.video.double_blocks.9.oops"] = torch.zeros(1)
    mot["mixtures.video.transformer.img_in.weight"] = torch.zeros(3, 3)
    message = (
        r"missing action\.head\.linear\.weight; unexpected mixtures\.video\.double_blocks\.9\.oops; "
        r"video\.img_in\.weight is \[3, 3\], expected \[64, 128\]\. Was it made for another variant or width"
    )
    with pytest.raises(CheckpointError, match=message):
        load({**official, "mot": mot})


class Payload:
    def __reduce__(self):
        return (open, ("executed", "w"))


def test_pickled_code_is_refused_and_not_executed(load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="holds more than tensors and was refused, nothing in it was executed"):
        load({"mot": Payload()})
    assert not (tmp_path / "executed").exists()


def test_plain_pickle_is_refused(tmp_path):
    (tmp_path / "model.pt").write_bytes(pickle.dumps({"mot": {}}))
    with pytest.raises(CheckpointError, match="refused|cannot be read"):
        read_official(tmp_path / "model.pt")


def test_truncated_file_is_refused(data, tmp_path):
    whole = (data / "flux2_tiny" / "checkpoint.pt").read_bytes()
    (tmp_path / "model.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="model.pt cannot be read .*download it again"):
        read_official(tmp_path / "model.pt")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no such file: .*model.pt"):
        read_official(tmp_path / "model.pt")


def test_other_dictionary_is_refused(load):
    with pytest.raises(CheckpointError, match=r"has no 'mot' \(found \['weights'\]\); it is not an ImageWAM"):
        load({"weights": {}})


def test_checkpoint_without_proprio_encoder_is_refused(official, load):
    with pytest.raises(CheckpointError, match="has no 'proprio_encoder'"):
        load({"mot": official["mot"]})
