from __future__ import annotations

import gzip
import json
import shutil

import numpy as np
import pytest
from posed_miniature import assert_consistent, assert_same_cameras, make_world, save

from vggt_edge import geometry
from vggt_edge.errors import InputError
from vggt_edge.evaluate.datasets import co3d, dataset

HIDDEN = (0, 0)  # the pixel whose depth the mask bars
INFINITE = (1, 1)
SCALE = 0.37  # scale_adjustment
GOOD, POOR, ABSENT, FAR = "110_13051_23361", "12_90_1", "7_8_9", "4_5_6"
TRAINED = "1_2_3"


@pytest.fixture(scope="module")
def world():
    return make_world(views=50, height=30, width=40)


def viewpoint(world, i, form):
    """ViewpointAnnotation as pytorch3d's ``cameras_from_opencv_projection`` makes it."""
    height, width = world.cameras.sizes[i]
    k, pose = world.cameras.intrinsics[i], world.cameras.camera_from_world[i].copy()
    rotation, translation = pose[:, :3].T.copy(), pose[:, 3].copy()
    rotation[:, :2] *= -1
    translation[:2] *= -1
    half = np.array([width, height]) / 2
    scale = half.min() if form == "ndc_isotropic" else half
    corner = k[:2, 2] + 0.5
    return {
        "R": rotation.tolist(),
        "T": translation.tolist(),
        "focal_length": (np.array([k[0, 0], k[1, 1]]) / scale).tolist(),
        "principal_point": (-(corner - half) / scale).tolist(),
        "intrinsics_format": form,
    }


def write_gz(path, tree):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(json.dumps(tree).encode()))


def write(root, world, category="teddybear", form="ndc_isotropic", pictures=True):
    """A category of five sequences: GOOD, one to train on, and three that are to be left out."""
    frames, test, train = [], [], []
    for sequence in (GOOD, POOR, ABSENT, FAR, TRAINED):
        for i in range(len(world.images) if sequence != ABSENT else 12):
            stem = f"{category}/{sequence}"
            picture = f"{stem}/images/frame{i + 1:06d}.jpg"
            depth = f"{stem}/depths/frame{i + 1:06d}.jpg.geometric.png"
            mask = f"{stem}/depth_masks/frame{i + 1:06d}.png"
            view = viewpoint(world, i, form)
            if sequence == FAR and i == 3:
                view["T"] = [4e5, 4e5, 4e5]
            if (i == 0 and sequence != ABSENT) or (pictures and sequence == GOOD):
                save(world.images[i], root / picture)
            if pictures and sequence == GOOD:
                stored = (world.depth[i] / SCALE).astype(np.float16)
                stored[INFINITE] = np.inf
                save(stored.view(np.uint16), root / depth)
                valid = np.full(world.depth[i].shape, 255, np.uint8)
                valid[HIDDEN] = 0
                save(valid, root / mask)
            frames.append(
                {
                    "sequence_name": sequence,
                    "frame_number": 2 * i,
                    "frame_timestamp": 0.1 * i,
                    "image": {"path": picture, "size": world.images[i].shape[:2]},
                    "depth": {"path": depth, "scale_adjustment": SCALE, "mask_path": mask},
                    "viewpoint": view,
                }
            )
            (train if sequence == TRAINED else test).append([sequence, 2 * i, picture])
    quality = {GOOD: 0.9, POOR: 0.4, ABSENT: 0.8, FAR: 0.7, TRAINED: 0.6}
    sequences = [
        {"sequence_name": s, "category": category, "viewpoint_quality_score": q}
        for s, q in quality.items()
    ]
    write_gz(root / category / "frame_annotations.jgz", frames)
    write_gz(root / category / "sequence_annotations.jgz", sequences)
    lists = root / category / "set_lists" / "set_lists_fewview_dev.json"
    lists.parent.mkdir(parents=True)
    lists.write_text(json.dumps({"train": train, "val": [], "test": test}))
    return frames


@pytest.mark.parametrize("form", ["ndc_isotropic", "ndc_norm_image_bounds"])
def test_published_layout(tmp_path, world, form):
    frames = write(tmp_path, world, form=form)
    (recording,) = co3d.read(tmp_path, "test")
    assert recording.name == f"teddybear/{GOOD}"
    assert recording.units == "arbitrary" and len(recording) == 50
    assert all(path.is_file() for path in recording.paths)
    assert_same_cameras(recording.cameras, world)
    assert_consistent(recording[::7])
    depth = recording.depth(5)
    assert depth[HIDDEN] == 0 and depth[INFINITE] == 0
    known = depth > 0
    np.testing.assert_allclose(depth[known], world.depth[5][known], rtol=1e-3)

    # PyTorch3D's own rule: rows times R, x to the left, y up, NDC measured from the centre.
    view = frames[5]["viewpoint"]
    points = world.points[::97]
    seen = points @ np.array(view["R"]) + view["T"]
    ndc = seen[:, :2] / seen[:, 2:] * view["focal_length"] + view["principal_point"]
    half = np.array([40, 30]) / 2
    screen = half - ndc * (half.min() if form == "ndc_isotropic" else half)
    mine = geometry.project(
        points, recording.cameras.intrinsics[5], recording.cameras.camera_from_world[5]
    )
    np.testing.assert_allclose(mine[:, :2] + 0.5, screen, atol=1e-6)


def test_preprocessed_annotation_gives_the_same_cameras_without_depth(tmp_path, world):
    frames = write(tmp_path, world)
    annotation = {"9_9_9": []}
    for frame in frames:
        view = {k: v for k, v in frame["viewpoint"].items() if k != "intrinsics_format"}
        annotation.setdefault(frame["sequence_name"], []).append(
            {"filepath": frame["image"]["path"], **view}
        )
    del annotation[POOR], annotation[TRAINED]
    write_gz(tmp_path / "teddybear_test.jgz", annotation)
    (recording,) = co3d.read(tmp_path, "test")
    assert recording.depth is None
    assert_same_cameras(recording.cameras, world)


def test_splits(tmp_path, world):
    write(tmp_path, world, category="frisbee", pictures=False)
    write(tmp_path, world, category="vase", pictures=False)
    assert [r.name for r in co3d.read(tmp_path, "train")] == [f"vase/{TRAINED}"]
    assert [r.name for r in co3d.read(tmp_path, "test")] == [f"vase/{GOOD}"]
    shutil.rmtree(tmp_path / "vase")
    assert [r.name for r in co3d.read(tmp_path, "unseen")] == [f"frisbee/{GOOD}"]
    with pytest.raises(InputError, match="no sequence of the test categories"):
        co3d.read(tmp_path, "test")
    assert len(co3d.SEEN) == 41 and len(co3d.UNSEEN) == 10
    assert not set(co3d.SEEN) & set(co3d.UNSEEN)
    with pytest.raises(InputError, match="no split 'val'; there are test, train, unseen"):
        co3d.read(tmp_path, "val")


def test_a_missing_root_says_what_to_fetch(tmp_path):
    with pytest.raises(InputError) as caught:
        dataset("co3d").read(tmp_path / "nowhere", "test")
    for part in ("nowhere", "download_dataset.py", "LICENSE", "frame_annotations.jgz"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f["viewpoint"].update(R=[[1, 0, 0]] * 3), "not a rotation"),
        (lambda f: f["viewpoint"].pop("T"), "lacks 'T'"),
        (lambda f: f["viewpoint"].update(focal_length=[0, 1]), "focal length"),
        (lambda f: f["viewpoint"].update(intrinsics_format="pixels"), "intrinsics_format"),
        (lambda f: f["image"].update(size="wide"), "not a list of frames"),
        (lambda f: f["depth"].update(path="../../etc/shadow"), "leaves the dataset"),
    ],
)
def test_a_malformed_annotation_gives_one_line(tmp_path, world, change, message):
    frames = write(tmp_path, world, pictures=False)
    change(frames[3])
    write_gz(tmp_path / "teddybear" / "frame_annotations.jgz", frames)
    with pytest.raises(InputError, match=message) as caught:
        co3d.read(tmp_path, "test")
    assert "\n" not in str(caught.value) and "frame_annotations.jgz" in str(caught.value)


def test_damaged_gzip_gives_one_line(tmp_path, world):
    write(tmp_path, world, pictures=False)
    path = tmp_path / "teddybear" / "frame_annotations.jgz"
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], b"no gzip", b"", gzip.compress(b"[" * 100_000)):
        path.write_bytes(data)
        with pytest.raises(InputError, match="frame_annotations.jgz"):
            co3d.read(tmp_path, "test")
