from __future__ import annotations

import dataclasses
from functools import cache
from importlib import resources
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from conftest import GOLDEN, MEGALOC_CONFIG
from safetensors.torch import load_file, save_file

from vggt_edge import covisibility, hub, memory, retrieval, weights
from vggt_edge.errors import CheckpointError, InputError, NumericError, OfflineError
from vggt_edge.images import read_views
from vggt_edge.model.megaloc import MegaLoc
from vggt_edge.retrieval import tokens
from vggt_edge.types import Views
from vggt_edge.worlds import KINDS, render

SAMPLE = Path(str(resources.files("vggt_edge") / "assets" / "sample"))
PHOTOGRAPHS = Path("/work/shared/data/posed")


@pytest.fixture(scope="module")
def small_file(tmp_path_factory) -> Path:
    golden = load_file(GOLDEN / "megaloc_small.safetensors")
    path = tmp_path_factory.mktemp("megaloc") / "small.safetensors"
    prefix = "weights."
    save_file({k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}, path)
    return path


@pytest.fixture(scope="module")
def megaloc(small_file) -> MegaLoc:
    return retrieval.load_megaloc(small_file, config=MEGALOC_CONFIG, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def pocket():
    return weights.load("pocket", dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def room() -> Views:
    return read_views(SAMPLE, size=112)


@pytest.fixture(scope="module", params=["tokens", "megaloc"])
def network(request, pocket, megaloc):
    return {"tokens": pocket, "megaloc": megaloc}[request.param]


def clouds(count: int, size: tuple[int, int] = (84, 112), seed: int = 0) -> Views:
    """Pictures of smooth random colour, no two alike."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(0, 255, (count, 3, 5, 5)))
    images = torch.nn.functional.interpolate(coarse, size, mode="bilinear")
    return Views.from_images(images.permute(0, 2, 3, 1).byte().numpy())


@cache
def worlds(size: tuple[int, int]) -> Views:
    """A picture of each of six kinds of world."""
    scenes = [render(100 + i, 1, 1, *size, kinds=(KINDS[i],)) for i in range(6)]
    pixels = torch.cat([one.images[0] for one in scenes]).permute(0, 2, 3, 1) * 255
    return Views.from_images(pixels.byte().numpy())


# Loading


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_local_file(small_file, megaloc, tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    if suffix == ".pt":
        torch.save(load_file(small_file), path)
    else:
        path.write_bytes(small_file.read_bytes())
    model = retrieval.load_megaloc(path, config=MEGALOC_CONFIG, dtype="float32", device="cpu")
    golden = load_file(GOLDEN / "megaloc_small.safetensors")
    ours = model.describe(golden["case1.normalised_images"])
    assert (ours - golden["case1.descriptor"]).abs().max() < 1e-6
    assert not model.training and model.license == hub.UNKNOWN_LICENSE


def test_half_precision_keeps_norms(small_file):
    model = retrieval.load_megaloc(small_file, config=MEGALOC_CONFIG, dtype="bf16", device="cpu")
    assert model.backbone.norm.weight.dtype == torch.float32
    assert model.aggregator.linear.weight.dtype == torch.bfloat16
    found = retrieval.descriptors(model, clouds(2))
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_the_hub_name_shows_its_licence(monkeypatch, small_file):
    asked = []
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda *names: asked.append(names) or str(small_file)
    )
    lines: list[str] = []
    model = retrieval.load_megaloc(config=MEGALOC_CONFIG, device="cpu", notify=lines.append)
    assert asked == [("gberton/MegaLoc", "model.safetensors")]
    assert len(lines) == 1 and "gberton/MegaLoc" in lines[0] and "MIT" in lines[0]
    assert "MIT" in model.license


def test_without_the_hub_it_says_so_and_nothing_random_takes_its_place(monkeypatch):
    def offline(*_):
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(OfflineError, match="gberton/MegaLoc"):
        retrieval.load_megaloc(notify=lambda _: None)


def test_wrong_files_are_refused(small_file, tmp_path):
    with pytest.raises(CheckpointError, match="wrong shape"):
        retrieval.load_megaloc(small_file)  # not of the published size
    content = load_file(small_file)
    del content["backbone.cls_token"]
    save_file(content | {"more": torch.zeros(1)}, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match=r"missing backbone\.cls_token; unknown more"):
        retrieval.load_megaloc(tmp_path / "m.safetensors", config=MEGALOC_CONFIG)
    (tmp_path / "n.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="not a readable"):
        retrieval.load_megaloc(tmp_path / "n.safetensors", config=MEGALOC_CONFIG)
    with pytest.raises(CheckpointError, match="wrong shape|missing"):
        retrieval.load_megaloc("pocket")
    with pytest.raises(CheckpointError, match="holds no VGGT"):
        weights.load(small_file)


def test_hub_names_offered_for_a_vggt_are_vggts():
    with pytest.raises(CheckpointError, match="VGGT-1B") as caught:
        weights.locate("nowhere.safetensors")
    assert "MegaLoc" not in str(caught.value)


# Descriptors of either kind


@pytest.mark.parametrize("size", [(84, 112), (126, 70), (112, 112)])
def test_unit_float32_rows_that_tell_pictures_apart(network, size):
    found = retrieval.descriptors(network, worlds(size))
    assert found.dtype == np.float32 and found.shape[0] == 6
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    cosine = found @ found.T - 2 * np.eye(6)
    # A network with random weights tells pictures apart badly, but not by rounding.
    assert cosine.max() < (0.7 if retrieval.method(network) == "tokens" else 0.9999)


def test_identical_views_are_one(network):
    views = clouds(2)[[0, 1, 0, 0]]
    found = retrieval.descriptors(network, views)
    assert (found[[2, 3]] @ found[0] > 0.9999).all() and found[1] @ found[0] < 0.9999
    alone = retrieval.descriptors(network, views[[0, 0, 0]])
    assert np.allclose(alone @ alone.T, 1, atol=1e-5)


def test_one_view_and_a_blank_one(network):
    assert np.allclose(np.linalg.norm(retrieval.descriptors(network, clouds(1))), 1, atol=1e-5)
    blank = Views.from_images(np.full((2, 70, 70, 3), 200, np.uint8))
    assert np.allclose(np.linalg.norm(retrieval.descriptors(network, blank), axis=1), 1, atol=1e-5)


def test_no_views(network):
    with pytest.raises(InputError, match="no views"):
        retrieval.descriptors(network, clouds(2)[:0])


def test_damaged_weights(network):
    broken = type(network)(network.config)
    broken.load_state_dict(network.state_dict())
    backbone = broken.backbone if isinstance(broken, MegaLoc) else broken.aggregator.patch_embed
    with torch.no_grad():
        backbone.norm.bias.fill_(float("nan"))
    with pytest.raises(NumericError, match=retrieval.method(network)):
        retrieval.descriptors(broken, clouds(2))


def test_methods_have_a_line_for_the_user_and_a_threshold(network):
    assert retrieval.method(network) in retrieval.METHODS
    assert retrieval.METHODS.keys() == retrieval.SAME_PLACE.keys()


# MegaLoc


def test_megaloc_sees_the_picture_without_its_padding(megaloc):
    views = clouds(2, (84, 112))
    padded = np.full((2, 112, 112, 3), 255, np.uint8)
    padded[:, 14:98] = views.images
    framed = dataclasses.replace(
        Views.from_images(padded), valid=np.tile(np.array([14, 0, 98, 112]), (2, 1))
    )
    found, wanted = (retrieval.descriptors(megaloc, v) for v in (framed, views))
    assert np.allclose(found, wanted, atol=1e-6)


def test_megaloc_batches_change_nothing(megaloc):
    views = clouds(10)
    alone = np.concatenate([retrieval.descriptors(megaloc, views[[i]]) for i in range(10)])
    assert np.allclose(retrieval.descriptors(megaloc, views), alone, atol=1e-5)


# Tokens


def test_overlap_shows_in_the_cosine(pocket, room):
    """Views of one room beside pictures of nothing: each view is most like another of the room."""
    noise = clouds(8, room.size)
    both = Views.from_images(np.concatenate([room.images, noise.images]))
    found = retrieval.descriptors(pocket, both)
    assert (covisibility.nearest(found, 1).indices[:8] < 8).all()
    graph = covisibility.covisibility_graph(found, 5, retrieval.SAME_PLACE["tokens"])
    labels = graph.components()
    assert not set(labels[:8]) & set(labels[8:])


def test_a_few_views_of_one_place_are_one_place(pocket, room):
    """Nothing else to compare with: likeness must not be relative to the set."""
    for count in (2, 4, 6):
        found = retrieval.descriptors(pocket, room[:count])
        graph = covisibility.covisibility_graph(found, 5, retrieval.SAME_PLACE["tokens"])
        assert not graph.components().any()


def test_few_views_at_a_time_and_the_same_result(pocket, monkeypatch):
    views = clouds(11)
    wanted = retrieval.descriptors(pocket, views)
    in_flight = []
    forward = type(pocket.aggregator.patch_embed).forward

    def counted(self, images):
        in_flight.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(type(pocket.aggregator.patch_embed), "forward", counted)
    monkeypatch.setattr(memory, "CHUNK_TOKENS", 120)
    found = retrieval.descriptors(pocket, views)
    assert max(in_flight) == 2
    assert np.allclose(found, wanted, atol=1e-4)


def test_a_vocabulary_is_fitted_on_a_bounded_sample(pocket, monkeypatch):
    monkeypatch.setattr(tokens, "SAMPLED_VIEWS", 3)
    counts = []
    encode = tokens.encode
    monkeypatch.setattr(tokens, "encode", lambda m, v: counts.append(len(v)) or encode(m, v))
    vocabulary = retrieval.fit_vocabulary(pocket, clouds(9), chunk=2)
    assert counts == [2] * 24 + [2, 1]  # the 48 reference pictures first
    assert len(vocabulary.words) == len(vocabulary.common) == tokens.WORDS


def test_later_views_compare_with_earlier_ones(pocket):
    views = clouds(12)
    vocabulary = retrieval.fit_vocabulary(pocket, views[:8])
    together = retrieval.descriptors(pocket, views, vocabulary=vocabulary)
    later = retrieval.descriptors(pocket, views[8:], vocabulary=vocabulary)
    assert np.allclose(together[8:], later, atol=1e-5)


def test_deterministic(pocket):
    views = clouds(6)
    first, second = (retrieval.descriptors(pocket, views) for _ in range(2))
    assert np.array_equal(first, second)


def test_padding_has_no_vote(pocket):
    views = clouds(3, (84, 112))
    boxes = np.array([[0, 0, 84, 112], [14, 0, 70, 112], [0, 50, 3, 53]])
    shown = tokens.patches_shown(dataclasses.replace(views, valid=boxes), 14).reshape(3, 6, 8)
    assert shown[0].all()
    assert not shown[1, [0, 5]].any() and shown[1, 1:5].all()
    assert shown[2].all()  # less than a patch: better all than none


def test_views_that_do_not_fit_the_patches(pocket):
    with pytest.raises(InputError, match="patch size 14"):
        retrieval.descriptors(pocket, clouds(2, (85, 112)))


@pytest.mark.skipif(not PHOTOGRAPHS.exists(), reason="the sample photographs are not here")
def test_two_photographed_places_come_apart(pocket):
    folders = ("rgbd_7scenes_redkitchen", "pose_kitti_1")
    files = [sorted((PHOTOGRAPHS / f / "images").iterdir())[:30] for f in folders]
    views = read_views([*files[0], *files[1]], size=224)
    found = retrieval.descriptors(pocket, views)
    graph = covisibility.covisibility_graph(found, 10, retrieval.SAME_PLACE["tokens"])
    labels = graph.components()
    assert not set(labels[:30]) & set(labels[30:])
    assert np.quantile((found @ found.T)[np.triu_indices(60, 1)], 0.5) < 0.5
