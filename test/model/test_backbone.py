# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from safetensors.torch import load_file, save_file

from imagewam_ros.core.errors import CheckpointError
from imagewam_ros.model.backbone import backbone_tensors
from imagewam_ros.model.naming import diffusers_names
from imagewam_ros.model.official import load_official
from imagewam_ros.model.reference_flux2 import Flux2Reference
from imagewam_ros.model.reference_omnigen2 import OmniGen2Reference
from imagewam_ros.model.reference_ovis_u1 import OvisU1Reference

REFERENCES = {"flux2": Flux2Reference, "ovis_u1": OvisU1Reference, "omnigen2": OmniGen2Reference}


def read(reference, path):
    """The backbone's weights as they are read for the reference's network."""
    network = type(reference.network)(reference.network.config)
    return {name: tensor.make() for name, tensor in backbone_tensors(path, network).items()}


@pytest.mark.parametrize("variant", REFERENCES)
def test_authors_naming_gives_the_checkpoints_backbone(data, variant):
    reference = REFERENCES[variant](data / f"{variant}_tiny")
    found = read(reference, data / f"{variant}_tiny" / "transformer.safetensors")
    for name, tensor in reference.network.video.state_dict().items():
        assert torch.equal(found[name], tensor), name


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
    found = read(flux2, tmp_path)
    for name, tensor in flux2.network.video.state_dict().items():
        assert torch.equal(found[name], tensor), name


def test_other_backbone_and_missing_file_are_refused(data, flux2, tmp_path):
    with pytest.raises(CheckpointError, match="missing .*Was it made for another variant"):
        read(flux2, data / "ovis_u1_tiny" / "transformer.safetensors")
    with pytest.raises(CheckpointError, match="no safetensors at"):
        read(flux2, tmp_path)
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="is not a readable safetensors file"):
        read(flux2, tmp_path / "a.safetensors")
    save_file({"a": torch.zeros(2).to(torch.float8_e4m3fn)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="holds numbers of type .*, which are not read; get the bfloat16"):
        read(flux2, tmp_path / "a.safetensors")


def test_official_loader_is_strict_about_the_variant(data, flux2):
    with pytest.raises(CheckpointError, match="does not fit the model"):
        load_official(flux2.empty_network(), data / "omnigen2_tiny" / "checkpoint.pt")
