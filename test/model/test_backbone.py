# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from safetensors.torch import load_file, save_file

from imagewam_ros.core.errors import CheckpointError
from imagewam_ros.model.backbone import load_backbone
from imagewam_ros.model.naming import diffusers_names
from imagewam_ros.model.official import load_official
from imagewam_ros.model.official_shapes import config_of
from imagewam_ros.model.reference_flux2 import Flux2Reference
from imagewam_ros.model.reference_omnigen2 import OmniGen2Reference
from imagewam_ros.model.reference_ovis_u1 import OvisU1Reference

REFERENCES = {"flux2": Flux2Reference, "ovis_u1": OvisU1Reference, "omnigen2": OmniGen2Reference}


def fresh(reference):
    return type(reference.network)(reference.network.config)


@pytest.mark.parametrize("variant", REFERENCES)
def test_authors_naming_gives_the_checkpoints_backbone(data, variant):
    reference = REFERENCES[variant](data / f"{variant}_tiny")
    network = fresh(reference)
    load_backbone(network, data / f"{variant}_tiny" / "transformer.safetensors")
    for name, tensor in reference.network.video.state_dict().items():
        assert torch.equal(network.video.state_dict()[name], tensor), name
    assert config_of({k: tuple(v.shape) for k, v in network.state_dict().items()}).hidden == network.config.hidden


def test_diffusers_naming_in_several_files_gives_the_same(data, flux2, tmp_path):
    authors = load_file(data / "flux2_tiny" / "transformer.safetensors")
    theirs = {}
    for name, tensor in authors.items():
        names = diffusers_names(name)
        if name.startswith("final_layer.adaLN_modulation.1."):
            tensor = torch.cat(tensor.chunk(2)[::-1])
        theirs |= dict(zip(names, (part.contiguous() for part in tensor.chunk(len(names))), strict=True))
    names = list(theirs)
    for i, part in enumerate((names[::2], names[1::2])):
        save_file({name: theirs[name] for name in part}, tmp_path / f"diffusion-{i}.safetensors")
    network = fresh(flux2)
    load_backbone(network, tmp_path)
    for name, tensor in flux2.network.video.state_dict().items():
        assert torch.equal(network.video.state_dict()[name], tensor), name


def test_expert_starts_from_the_backbone(data, flux2):
    network = fresh(flux2)
    load_backbone(network, data / "flux2_tiny" / "transformer.safetensors")
    scale = network.video.double_blocks[0].img_attn.norm.query_norm.scale
    assert torch.equal(network.action.double_blocks[0].img_attn.norm.query_norm.scale, scale)


def test_other_backbone_and_missing_file_are_refused(data, flux2, tmp_path):
    with pytest.raises(CheckpointError, match="missing .*Was it made for another variant"):
        load_backbone(fresh(flux2), data / "ovis_u1_tiny" / "transformer.safetensors")
    with pytest.raises(CheckpointError, match="no safetensors at"):
        load_backbone(fresh(flux2), tmp_path)
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="is not a readable safetensors file"):
        load_backbone(fresh(flux2), tmp_path / "a.safetensors")


def test_official_loader_is_strict_about_the_variant(data, flux2):
    with pytest.raises(CheckpointError, match="does not fit the model"):
        load_official(flux2.empty_network(), data / "omnigen2_tiny" / "checkpoint.pt")
