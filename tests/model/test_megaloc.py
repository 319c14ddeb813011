"""Our MegaLoc against the numbers upstream gave on the same weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import GOLDEN, MEGALOC_CONFIG
from safetensors.torch import load_file

from vggt_edge.model.megaloc import MegaLoc, resample_matrix
from vggt_edge.model.vit import IMAGE_MEAN, IMAGE_STD


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "megaloc_small.safetensors")


@pytest.fixture(scope="module")
def small(golden) -> MegaLoc:
    model = MegaLoc(MEGALOC_CONFIG)
    weights = {k.removeprefix("weights."): v for k, v in golden.items() if k.startswith("weights.")}
    model.load_state_dict(weights, strict=True)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("case", [0, 1])  # 70x70 and, not square, 56x98
def test_descriptors(golden, small, case):
    ours = small.describe(golden[f"case{case}.normalised_images"])
    assert (ours - golden[f"case{case}.descriptor"]).abs().max() < 1e-6


@pytest.mark.parametrize("case", [0, 1])
def test_one_picture_at_a_time(golden, small, case):
    images = golden[f"case{case}.normalised_images"]
    alone = torch.cat([small.describe(image[None]) for image in images])
    assert (alone - golden[f"case{case}.descriptor"]).abs().max() < 1e-6


def test_full_size_names_and_shapes():
    with torch.device("meta"):
        found = {name: tuple(t.shape) for name, t in MegaLoc().state_dict().items()}
    lines = (GOLDEN / "megaloc_tensors.txt").read_text().splitlines()
    wanted = {
        name: () if shape == "scalar" else tuple(map(int, shape.split("x")))
        for name, shape in (line.split() for line in lines)
    }
    assert found == wanted


@pytest.mark.parametrize("size", [3, 5, 8, 37])
@pytest.mark.parametrize("out", [4, 7, 23, 60])
def test_resampling_is_bicubic_at_the_scale_dinov2_was_trained_with(out, size):
    line = torch.randn(1, 1, size, 1, generator=torch.Generator().manual_seed(out))
    scale = ((out + 0.1) / size, 1.0)
    wanted = F.interpolate(line, scale_factor=scale, mode="bicubic")[0, 0, :, 0]
    assert len(wanted) == out
    assert torch.allclose(resample_matrix(out, size) @ line[0, 0, :, 0], wanted, atol=1e-5)


def test_pictures_are_normalised_here(golden, small):
    images = torch.randint(0, 256, (2, 3, 56, 98), dtype=torch.uint8)
    mean, std = torch.tensor(IMAGE_MEAN).view(3, 1, 1), torch.tensor(IMAGE_STD).view(3, 1, 1)
    wanted = small.describe((images.float() / 255 - mean) / std)
    assert torch.allclose(small(images), wanted, atol=1e-6)
    assert torch.allclose(small(images.float() / 255), wanted, atol=1e-6)


@pytest.mark.parametrize(("given", "taken"), [((60, 100), (56, 98)), ((64, 64), (70, 70))])
def test_any_size_becomes_the_nearest_multiple_of_the_patch(small, given, taken):
    images = torch.rand(1, 3, *given)
    resized = F.interpolate(images, taken, mode="bilinear", antialias=True)
    assert torch.equal(small(images), small(resized))
    assert torch.equal(small(images, size=taken), small(resized))


def test_upright_and_lying_pictures_differ(small):
    images = torch.rand(1, 3, 56, 98)
    cosine = (small(images) @ small(images.transpose(2, 3)).T).item()
    assert cosine < 0.999


def test_every_cluster_takes_one_patch_and_the_bin_the_rest(small):
    scores = torch.randn(2, 8, 30, generator=torch.Generator().manual_seed(0))
    shares = small.aggregator.agg.assign(scores)
    assert shares.shape == (2, 8, 30) and (shares > 0).all()
    # The last of the iterations evens out the patches, so patches are exact, clusters nearly.
    assert (shares.sum(dim=1) <= 1 + 1e-5).all()
    assert torch.allclose(shares.sum(dim=2), torch.ones(2, 8), atol=0.2)


def test_descriptors_are_unit_and_different_pictures_differ(small):
    images = torch.rand(3, 3, 70, 70) * torch.tensor([1.0, 0.5, 0.1]).view(3, 1, 1, 1)
    found = small(images)
    assert torch.allclose(found.norm(dim=1), torch.ones(3), atol=1e-6)
    assert (found @ found.T - torch.eye(3)).abs().max() < 0.9999


@pytest.mark.parametrize("size", [(60, 70), (42, 14), (28, 56)])
def test_sizes_it_cannot_take(small, size):
    with pytest.raises(ValueError, match="patch"):
        small.describe(torch.zeros(1, 3, *size))


def test_half_precision_stays_near(golden, small):
    half = MegaLoc(MEGALOC_CONFIG)
    half.load_state_dict(small.state_dict())
    half.bfloat16()
    ours = half.describe(golden["case1.normalised_images"])
    assert ours.dtype == torch.float32
    assert F.cosine_similarity(ours, golden["case1.descriptor"]).min() > 0.99
