"""Calibration sets: what is chosen, what is refused, and what an interruption costs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vggt_edge.cli import main
from vggt_edge.compress import calibrate as calibrate_module
from vggt_edge.compress import sampling
from vggt_edge.compress.calibrate import calibrate, find_candidates
from vggt_edge.compress.calibration_set import as_scenes, read_manifest, read_set
from vggt_edge.compress.sampling import (
    SceneStatistics,
    abnormal,
    choose,
    k_means,
    scene_statistics,
)
from vggt_edge.errors import ImageError, InputError, OutputError
from vggt_edge.types import Views
from vggt_edge.weights import describe

NO_PEAKS = np.zeros((0, 2))
SETTINGS = {"views": 3, "clusters": 2, "each": 2, "size": 56}


def pictures(folder: Path, count: int, seed: int) -> Path:
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    base = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    for index in range(count):
        noise = random.integers(0, 40, base.shape)
        image = Image.fromarray((base * 0.8 + noise).astype(np.uint8)).resize((56, 42))
        image.save(folder / f"{index:02d}.png")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    for number in range(4):
        pictures(root / f"scene_{number}", 5, number)
    return root


def planted(count: int = 30, seed: int = 0):
    random = np.random.default_rng(seed)
    moments = random.normal(0, 1, (count, 6)) * 0.1 + np.arange(6)
    similarity = np.concatenate([random.normal(c, 0.01, (count // 3, 4)) for c in (0.2, 0.5, 0.9)])
    return moments, similarity


def test_the_filter_removes_what_it_should():
    moments, similarity = planted()
    random = np.random.default_rng(1)
    noisy = [4, 17, 25]
    moments[4, 0] += 5
    moments[17, 5] -= 5
    moments[25] += random.normal(0, 8, 6)
    groups = ["a"] * 15 + ["b"] * 15
    found = abnormal(moments, groups)
    # Tukey's fences take some normal ones with them, more so in small groups.
    assert found[noisy].all() and found.sum() < 9
    assert not abnormal(np.ones((10, 3)), ["a"] * 10).any()
    statistics = [SceneStatistics(*row, NO_PEAKS) for row in zip(moments, similarity, strict=True)]
    for seed in range(5):
        sample = choose(statistics, groups, clusters=3, each=9, seed=seed)
        assert not set(noisy) & set(sample.chosen)
        assert (sample.cluster[noisy] == -1).all() and not sample.kept[noisy].any()


def test_groups_are_judged_by_their_own():
    """What is usual in one folder may be far out in another."""
    moments = np.concatenate([np.linspace(0, 1, 12), np.linspace(10, 11, 12)])[:, None]
    groups = ["a"] * 12 + ["b"] * 12
    assert not abnormal(moments, groups).any()
    moments[3] = 10.5
    assert abnormal(moments, groups).nonzero()[0].tolist() == [3]
    # Too few for quartiles of their own: judged among all.
    assert not abnormal(moments, ["a"] * 3 + ["b"] * 21)[:3].any()


def test_sampling_is_diverse_and_stable():
    moments, similarity = planted()
    statistics = [SceneStatistics(*row, NO_PEAKS) for row in zip(moments, similarity, strict=True)]
    groups = ["a"] * 30
    sample = choose(statistics, groups, clusters=3, each=2, seed=7)
    assert len(sample.chosen) == 6 == len(set(sample.chosen))
    assert sorted(i // 10 for i in sample.chosen) == [0, 0, 1, 1, 2, 2]
    again = choose(statistics, groups, clusters=3, each=2, seed=7)
    assert sample.chosen == again.chosen and (sample.cluster == again.cluster).all()
    assert any(choose(statistics, groups, 3, 2, seed).chosen != sample.chosen for seed in range(5))
    many = choose(statistics, groups, clusters=3, each=50, seed=7)
    assert len(many.chosen) == many.kept.sum()


def test_a_filter_that_leaves_nothing_says_so():
    """Every candidate sticks out in a number of its own."""
    moments = np.array([[100 if i == j else (j - i) % 6 for i in range(6)] for j in range(6)])
    statistics = [SceneStatistics(one, np.zeros(3), NO_PEAKS) for one in moments]
    with pytest.raises(InputError, match=r"all 6 candidates: raise --whisker \(it is 1.5\)"):
        choose(statistics, ["a"] * 6, clusters=2, each=1)
    assert len(choose(statistics, ["a"] * 6, 2, 1, whisker=1e9).chosen) == 2


def test_k_means():
    random = np.random.default_rng(3)
    true = np.repeat([0, 1, 2, 3], 10)
    centers = np.array([[0, 0], [5, 0], [0, 5], [5, 5]])
    vectors = centers[true] + random.normal(0, 0.3, (40, 2))
    label = k_means(vectors, 4, seed=0)
    assert len({(a, b) for a, b in zip(true, label, strict=True)}) == 4
    assert (k_means(np.ones((5, 2)), 2) >= 0).all()


def test_statistics_are_of_the_last_quarter(tiny_model):
    images = torch.randint(0, 256, (1, 3, 3, 42, 56), dtype=torch.uint8)
    found = scene_statistics(tiny_model, images)
    assert found.moments.shape == (4,) and found.similarity.shape == (2,)
    caught = []
    blocks = tiny_model.aggregator.global_blocks
    handle = blocks[-1].register_forward_pre_hook(lambda _, given: caught.append(given[0].abs()))
    tiny_model.aggregator(images)
    handle.remove()
    special = tiny_model.config.special_tokens
    largest = [float(caught[0][:, :, special:].max()), float(caught[0][:, :, :special].max())]
    assert found.peaks.shape == (2, 2) and found.peaks[-1].tolist() == pytest.approx(largest)
    same = images[:, :1].expand(-1, 3, -1, -1, -1)
    alike = scene_statistics(tiny_model, same).similarity
    assert alike[1] == pytest.approx(alike[0], abs=1e-6) and (alike > found.similarity).all()


def test_sequences_of_one_name_are_drawn_apart(tmp_path):
    """Folders of the same name in different sequences are different folders."""
    for name in ("a", "b"):
        pictures(tmp_path / name / "color", 12, 0)
    found = find_candidates([tmp_path], 3, 8, seed=0).candidates
    drawn = {
        name: [
            [Path(file).name for file in one.files] for one in found if f"/{name}/" in one.sequence
        ]
        for name in ("a", "b")
    }
    assert len(drawn["a"]) == len(drawn["b"]) == 4 and drawn["a"] != drawn["b"]


def test_a_set_and_its_manifest(tiny_model, folder, tmp_path):
    manifest = calibrate(tiny_model, [folder], tmp_path / "set", **SETTINGS)
    assert manifest["settings"]["candidates"] == 12 and len(manifest["scenes"]) == 4
    assert read_manifest(tmp_path / "set")["scenes"] == manifest["scenes"]
    assert set(manifest["largest"]) == {
        f"aggregator.{kind}_blocks.{tiny_model.config.depth - 1}" for kind in ("frame", "global")
    }
    assert all(value > 0 for row in manifest["largest"].values() for value in row.values())
    chosen = [manifest["candidates"][scene["candidate"]] for scene in manifest["scenes"]]
    assert all(one["kept"] for one in chosen)
    scenes = read_set(tmp_path / "set")
    assert [len(views) for views in scenes] == [3] * 4
    for views, one in zip(scenes, chosen, strict=True):
        for image, source in zip(views.images, one["files"], strict=True):
            assert np.array_equal(image, np.asarray(Image.open(source)))
    again = calibrate(tiny_model, [folder], tmp_path / "again", **SETTINGS)
    assert again == manifest
    with pytest.raises(InputError, match="already"):
        calibrate(tiny_model, [folder], tmp_path / "set", **SETTINGS)


def test_a_set_that_is_too_small_says_so(tiny_model, folder, tmp_path, monkeypatch, capsys):
    whole = calibrate(tiny_model, [folder], tmp_path / "whole", **SETTINGS)
    assert whole["missing"] == 0

    def all_but_three(moments, groups, whisker):
        return np.arange(len(moments)) >= 3

    monkeypatch.setattr(sampling, "abnormal", all_but_three)
    short = calibrate(tiny_model, [folder], tmp_path / "short", **SETTINGS)
    assert short["missing"] == 1 and len(short["scenes"]) == 3
    monkeypatch.setattr("vggt_edge.weights.load", lambda *_, **__: tiny_model)
    code, out, err = run(
        capsys, monkeypatch, "calibrate", folder, "-o", tmp_path / "set", "--views", 3,
        "--clusters", 2, "--each", 2, "--size", 56,
    )  # fmt: skip
    assert code == 0, err
    assert "1 scenes of 4 asked for" in out


def test_an_interrupted_calibration_goes_on(tiny_model, folder, tmp_path, monkeypatch):
    whole = calibrate(tiny_model, [folder], tmp_path / "whole", **SETTINGS)
    looked = []

    def until_five(model, images):
        if len(looked) == 5:
            raise KeyboardInterrupt
        looked.append(1)
        return scene_statistics(model, images)

    monkeypatch.setattr(calibrate_module, "scene_statistics", until_five)
    with pytest.raises(KeyboardInterrupt):
        calibrate(tiny_model, [folder], tmp_path / "set", **SETTINGS)
    with pytest.raises(InputError, match="interrupted; run the same"):
        read_set(tmp_path / "set")
    damaged = next((tmp_path / "set" / "candidates").iterdir())
    damaged.write_text("[[")

    def count(model, images):
        looked.append(1)
        return scene_statistics(model, images)

    monkeypatch.setattr(calibrate_module, "scene_statistics", count)
    assert calibrate(tiny_model, [folder], tmp_path / "set", **SETTINGS) == whole
    assert len(looked) == 12 + 1  # the damaged one twice
    assert not (tmp_path / "set" / "candidates").exists()


def test_candidates(folder):
    found, skipped = find_candidates([folder], views=3, wanted=8, seed=0)
    assert skipped == 0 and len(found) == 8 and all(len(set(one.files)) == 3 for one in found)
    assert {Path(one.sequence).name for one in found} == {f"scene_{i}" for i in range(4)}
    assert found == find_candidates([folder], views=3, wanted=8, seed=0).candidates
    assert found != find_candidates([folder], views=3, wanted=8, seed=1).candidates
    one, _ = find_candidates([folder / "scene_0", folder / "scene_1"], views=3, wanted=4, seed=0)
    assert {c.group for c in one} == {str(folder / "scene_0"), str(folder / "scene_1")}


def test_folders_at_any_depth_and_what_is_skipped(tmp_path):
    root = tmp_path / "all"
    pictures(root / "a" / "b" / "deep", 4, 0)
    pictures(root / "a" / "other", 4, 1)
    pictures(root / "short", 2, 2)
    (root / "a" / "b" / "loop").symlink_to(root)
    found, skipped = find_candidates([root], views=3, wanted=2, seed=0)
    assert {Path(one.sequence).name for one in found} == {"deep", "other"} and skipped == 1


def test_a_dataset_gives_its_pictures_alone(tmp_path, tiny_model, capsys, monkeypatch):
    for number, count in ((1, 5), (2, 2)):
        place = pictures(tmp_path / "root" / "chess" / f"seq-{number:02d}", count, number)
        for index, path in enumerate(sorted(place.iterdir())):
            path.rename(place / f"frame-{index:06d}.color.png")
            depth = np.full((42, 56), 1000, dtype=np.uint16)
            Image.fromarray(depth).save(place / f"frame-{index:06d}.depth.png")
            np.savetxt(place / f"frame-{index:06d}.pose.txt", np.eye(4))
    (tmp_path / "root" / "chess" / "TrainSplit.txt").write_text("sequence1\nsequence2\n")
    monkeypatch.setattr("vggt_edge.weights.load", lambda *_, **__: tiny_model)
    code, out, err = run(
        capsys, monkeypatch, "calibrate", "--dataset", "7scenes", "--root", tmp_path / "root",
        "-o", tmp_path / "set", "--views", 3, "--clusters", 1, "--each", 1, "--size", 56,
    )  # fmt: skip
    assert code == 0, err
    assert "1 sequences of fewer than 3 pictures" in out
    manifest = read_manifest(tmp_path / "set")
    assert manifest["skipped"] == 1
    assert {one["group"] for one in manifest["candidates"]} == {"chess"}
    assert all(f.endswith(".color.png") for one in manifest["candidates"] for f in one["files"])
    for arguments, line in (
        (["--root", tmp_path], "name it with --dataset"),
        (["--dataset", "7scenes"], "needs --root: download"),
        ([], "nothing to calibrate with"),
    ):
        code, _, err = run(capsys, monkeypatch, "calibrate", *arguments, "-o", tmp_path / "no")
        assert code == 2 and line in err


def test_any_folder_is_a_set(folder):
    scenes = read_set(folder / "scene_0", size=56, views=3)
    assert [len(views) for views in scenes] == [3, 2]
    assert sorted(n for views in scenes for n in views.names) == [f"{i:02d}" for i in range(5)]
    many = Views.from_images(np.zeros((25, 14, 14, 3), dtype=np.uint8))
    assert [len(views) for views in as_scenes(many)] == [9, 8, 8]
    assert as_scenes(many)[1].names[0] == "view_0001"


def test_refusals(tiny_model, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    pictures(tmp_path / "short", 2, 0)
    pictures(tmp_path / "damaged", 4, 0)
    for path in (tmp_path / "damaged").iterdir():
        path.write_bytes(path.read_bytes()[:100])

    def refused(error, match, *folders, **changes):
        with pytest.raises(error, match=match) as caught:
            calibrate(tiny_model, folders, tmp_path / "set", **{**SETTINGS, **changes})
        assert "\n" not in str(caught.value)

    refused(ImageError, "no such folder", tmp_path / "nowhere")
    refused(ImageError, "holds no pictures", tmp_path / "empty")
    refused(ImageError, "2 pictures in a sequence", tmp_path / "short")
    refused(ImageError, "png", tmp_path / "damaged")
    refused(InputError, "2 candidates for 2 x 2", folder / "scene_0", candidates=2)
    refused(InputError, "2 views a scene", folder, views=1)
    with pytest.raises(OutputError):
        calibrate(tiny_model, [folder], folder / "scene_0" / "00.png", **SETTINGS)
    with pytest.raises(ImageError):
        read_set(tmp_path / "empty")
    pictures(tmp_path / "single", 1, 0)
    with pytest.raises(ImageError, match="too few to calibrate"):
        read_set(tmp_path / "single")


def run(capsys, monkeypatch, *arguments) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["vggt-edge", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    printed = capsys.readouterr()
    return int(caught.value.code or 0), printed.out, printed.err


def test_the_commands(folder, tmp_path, capsys, monkeypatch):
    code, out, err = run(
        capsys, monkeypatch, "calibrate", folder, "-o", tmp_path / "set", "--views", 2,
        "--clusters", 1, "--each", 2, "--size", 56, "--json",
    )  # fmt: skip
    assert code == 0, err
    assert len(json.loads(out.splitlines()[-1])["scenes"]) == 2
    file = tmp_path / "small.safetensors"
    code, out, err = run(
        capsys, monkeypatch, "compress", "--recipe", "aggregator.frame_blocks.*=w8a8",
        "--method", "smooth", "--calibration", tmp_path / "set", "--rows", 64, "-o", file, "--json",
        "--compensation-token",
    )  # fmt: skip
    assert code == 0, err
    data = json.loads(out.splitlines()[-1])
    assert data["bytes"] == file.stat().st_size and data["scenes"] == 2
    assert "a compensation token" in out and describe(file).config.compensation_tokens == 1
    assert "quantized" in out and not list(tmp_path.glob("*.partial"))
    code, out, err = run(capsys, monkeypatch, "info", file, "--size", 56)
    assert code == 0 and "w8a8" in out


@pytest.mark.parametrize(
    "arguments, code, line",
    [
        (["--recipe", "w3a3"], 2, "unknown scheme 'w3a3'"),
        (["--method", "magic"], 2, "unknown method 'magic'"),
        (["--method", "gptq"], 2, "needs calibration pictures"),
        (["--compensation-token"], 2, "give them with --calibration"),
        (["--recipe", "nowhere.*=w8a8"], 2, "matches no layer"),
        (["--calibration", "/nowhere"], 1, "/nowhere"),
        (["-o", "x.bin"], 1, "saved as .safetensors"),
        (["--floats", "int3"], 2, "--floats 'int3'"),
        (["nowhere/x", "--max-drop", "1", "--candidates", "float"], 2, "nothing that compresses"),
        (["nowhere/x", "--budget", "1MB", "--candidates", "w3"], 2, "unknown scheme 'w3'"),
    ],
)
def test_one_line_for_what_cannot_be(arguments, code, line, capsys, monkeypatch):
    found, _, err = run(capsys, monkeypatch, "compress", *arguments)
    assert found == code and line in err and err.count("\n") == 1 and err.startswith("error: ")
