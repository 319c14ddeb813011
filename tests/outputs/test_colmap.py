from __future__ import annotations

import shutil
from dataclasses import fields, replace

import numpy as np
import pycolmap
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from synthetic import make_scene

from vggt_edge import geometry
from vggt_edge.errors import InputError, OutputError
from vggt_edge.outputs import colmap
from vggt_edge.scene.tracks import build_sparse_model
from vggt_edge.sparse_model import SparseModel

BINARY = ("cameras.bin", "images.bin", "points3D.bin")
TEXT = ("cameras.txt", "images.txt", "points3D.txt")


@pytest.fixture(scope="module")
def model() -> SparseModel:
    return build_sparse_model(make_scene(views=4), target_points=500)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A model of a few points, written both ways; its folder."""
    model = build_sparse_model(make_scene(views=3, height=14, width=18), voxel=2.0)
    return colmap.write(model, tmp_path_factory.mktemp("small"), text="both")


def assert_same(a: SparseModel, b: SparseModel) -> None:
    assert a.names == b.names
    for name in ("intrinsics", "camera_from_world", "sizes"):
        np.testing.assert_allclose(
            getattr(a.cameras, name), getattr(b.cameras, name), rtol=0, atol=1e-12, err_msg=name
        )
    for field in fields(SparseModel)[2:]:
        x, y = getattr(a, field.name), getattr(b, field.name)
        assert x.dtype == y.dtype, field.name
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-12, err_msg=field.name)


def as_pycolmap_writes(folder, out):
    reconstruction = pycolmap.Reconstruction(str(folder))
    out.mkdir()
    reconstruction.write_binary(str(out))
    reconstruction.write_text(str(out))
    return reconstruction


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_files_are_byte_for_byte_those_of_colmap(tmp_path, text, shared):
    model = build_sparse_model(make_scene(views=4), target_points=500, shared_camera=shared)
    folder = colmap.write(model, tmp_path / "ours", text=text)
    reconstruction = as_pycolmap_writes(folder, tmp_path / "theirs")
    assert reconstruction.num_cameras() == reconstruction.num_rigs() == (1 if shared else 4)
    assert reconstruction.num_reg_frames() == 4
    files = sorted(path.name for path in folder.iterdir())
    assert len(files) == 5
    for name in files:
        ours, theirs = (f.read_bytes() for f in (folder / name, tmp_path / "theirs" / name))
        if text:  # COLMAP leaves a blank at the end of some lines
            ours, theirs = ([line.rstrip() for line in f.split(b"\n")] for f in (ours, theirs))
        assert ours == theirs, name


def test_round_trip_through_pycolmap(model, tmp_path):
    folder = colmap.write(model, tmp_path / "ours")
    as_pycolmap_writes(folder, tmp_path / "theirs")
    assert_same(colmap.read(tmp_path / "ours"), model)
    assert_same(colmap.read(folder), model)
    assert_same(colmap.read(tmp_path / "theirs"), model)


def test_text_and_binary_are_equal(model, tmp_path):
    colmap.write(model, tmp_path / "binary")
    colmap.write(model, tmp_path / "text", text=True)
    assert_same(colmap.read(tmp_path / "text"), model)
    assert_same(colmap.read(tmp_path / "binary"), model)


def test_pycolmap_sees_the_same_model(model, tmp_path):
    theirs = pycolmap.Reconstruction(str(colmap.write(model, tmp_path)))
    assert theirs.compute_mean_track_length() == pytest.approx(model.track_lengths.mean())
    written = theirs.compute_mean_reprojection_error()
    theirs.update_point_3d_errors()
    assert theirs.compute_mean_reprojection_error() == pytest.approx(written, rel=1e-6)
    assert written == pytest.approx(model.errors.mean(), rel=1e-6)
    for i, image in theirs.images.items():
        assert image.name == f"photo_{i - 1:03d}.png"
        camera = theirs.cameras[image.camera_id]
        assert (camera.height, camera.width) == (112, 140)
        mine = geometry.project(
            model.points[:20],
            model.cameras.intrinsics[i - 1],
            model.cameras.camera_from_world[i - 1],
        )
        for j in np.flatnonzero(mine[:, 2] > 0):
            pixel = image.project_point(model.points[j])
            np.testing.assert_allclose(pixel, mine[j, :2] + 0.5, atol=1e-9)
        for k, point in enumerate(image.points2D):
            elements = theirs.points3D[point.point3D_id].track.elements
            assert (i, k) in [(e.image_id, e.point2D_idx) for e in elements]


def test_bundle_adjustment_restores_perturbed_cameras(model, tmp_path):
    rng = np.random.default_rng(3)
    turn = np.concatenate([rng.normal(scale=0.005, size=(4, 3)), np.ones((4, 1))], axis=-1)
    noise = np.concatenate(
        [geometry.quaternion_to_matrix(turn), rng.normal(scale=0.02, size=(4, 3, 1))], axis=-1
    )
    poses = geometry.compose_rigid(noise, model.cameras.camera_from_world)
    perturbed = replace(model, cameras=replace(model.cameras, camera_from_world=poses))
    folder = colmap.write(perturbed, tmp_path)
    theirs = pycolmap.Reconstruction(str(folder))
    theirs.update_point_3d_errors()
    before = theirs.compute_mean_reprojection_error()
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.refine_focal_length = options.refine_extra_params = False
    pycolmap.bundle_adjustment(theirs, options)
    theirs.update_point_3d_errors()
    after = theirs.compute_mean_reprojection_error()
    assert before > 1 and after < 0.05
    theirs.write(str(folder))
    adjusted = colmap.read(folder)

    def misplaced(cameras):
        truth, got = model.cameras.centers, cameras.centers
        return np.abs(geometry.fit_similarity(got, truth).apply(got) - truth).max()

    assert misplaced(adjusted.cameras) < 0.1 * misplaced(perturbed.cameras)


def test_empty_and_unmatched_points(model, tmp_path):
    nothing = replace(
        model,
        points=model.points[:0],
        colors=model.colors[:0],
        errors=model.errors[:0],
        observation_point=np.full_like(model.observation_point, -1),
    )
    for text in (False, True):
        folder = colmap.write(nothing, tmp_path / str(text), text=text)
        assert_same(colmap.read(folder), nothing)
        assert pycolmap.Reconstruction(str(folder)).num_points3D() == 0
    no_observations = replace(
        nothing,
        observations=nothing.observations[:0],
        observation_image=nothing.observation_image[:0],
        observation_point=nothing.observation_point[:0],
    )
    for text in (False, True):
        folder = colmap.write(no_observations, tmp_path / f"none{text}", text=text)
        assert_same(colmap.read(folder), no_observations)


def test_ids_with_gaps_in_any_order_without_rigs(tmp_path):
    (tmp_path / "cameras.txt").write_text(
        "# c\n7 SIMPLE_PINHOLE 64 48 50 32 24\n3 PINHOLE 32 24 30 31 16 12\n9 PINHOLE 9 9 9 9 4 4\n"
    )
    (tmp_path / "images.txt").write_text(
        "20 1 0 0 0 0 0 1 7 b c.jpg\n1.5 2.5 90 9 9 -1 3 4 4\n"
        "\n# between\n10 0.5 0.5 0.5 0.5 1 2 3 3 a.jpg\n5 6 90\n"
    )
    (tmp_path / "points3D.txt").write_text(
        "90 1 2 3 10 20 30 0.5 20 0 10 0\n4 0 0 1 255 0 0 -1 20 2\n"
    )
    model = colmap.read(tmp_path)
    assert model.names == ("a.jpg", "b c.jpg")
    assert model.camera_index.tolist() == [0, 1]
    assert model.cameras.sizes.tolist() == [[24, 32], [48, 64]]
    assert model.cameras.intrinsics[1].tolist() == [[50, 0, 31.5], [0, 50, 23.5], [0, 0, 1]]
    np.testing.assert_allclose(
        model.cameras.camera_from_world[0], [[0, 0, 1, 1], [1, 0, 0, 2], [0, 1, 0, 3]]
    )
    assert model.observation_point.tolist() == [1, 1, -1, 0]
    assert model.observations.tolist() == [[4.5, 5.5], [1, 2], [8.5, 8.5], [2.5, 3.5]]
    assert model.errors.tolist() == [-1, 0.5]
    assert np.isnan(model.reprojection_errors()[2])


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("cameras.txt", "PINHOLE", "OPENCV", r"cameras\.txt: line 4: .*OPENCV.*undistort"),
        ("cameras.txt", " 36 28 ", " 36 -28 ", r"impossible size"),
        ("cameras.txt", "1 PINHOLE", "2 PINHOLE", "camera 2 is there twice"),
        ("cameras.txt", "1 PINHOLE", "8 PINHOLE", "camera 1 is used but not defined"),
        ("images.txt", "photo_001", "photo_000", "two images have the same name"),
        ("images.txt", "1 1 0 0 0", "1 1 0 0 nan", "not a finite number"),
        ("images.txt", "1 1 0 0 0", "1 0 0 0 0", "rotation"),
        ("images.txt", "1 1 0 0 0", "x 1 0 0 0", r"images\.txt: line 5 is not an image"),
        ("points3D.txt", " 1 0 ", " 1 1 ", "disagree"),
        ("points3D.txt", " 1 0 ", " 1 99999 ", "does not have"),
        ("points3D.txt", " 1 0 ", " 44 0 ", "image 44 is used but not defined"),
    ],
)
def test_contradictions_are_named(small, tmp_path, name, old, new, message):
    for file in TEXT:
        shutil.copy(small / file, tmp_path)
    content = (tmp_path / name).read_text()
    body = content.index("\n", content.index("# Number"))
    changed = content[:body] + content[body:].replace(old, new, 1)
    assert changed != content
    (tmp_path / name).write_text(changed)
    with pytest.raises(InputError, match=message) as error:
        colmap.read(tmp_path)
    assert "\n" not in str(error.value)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(InputError, match="holds no COLMAP model"):
        colmap.read(tmp_path)
    with pytest.raises(InputError, match="holds no COLMAP model"):
        colmap.read(tmp_path / "absent")


def test_no_text_for_names_with_white_space(model, tmp_path):
    named = replace(model, names=("a b.jpg", *model.names[1:]))
    with pytest.raises(OutputError, match=r"'a b\.jpg'"):
        colmap.write(named, tmp_path / "out", text=True)
    assert not (tmp_path / "out").exists()
    assert colmap.read(colmap.write(named, tmp_path / "out")).names == named.names


def test_files_of_the_other_kind_do_not_survive(model, tmp_path):
    folder = colmap.write(model, tmp_path, text="both")
    (folder / "project.ini").write_text("kept")
    colmap.write(model, tmp_path, text=True)
    kept = ["cameras.txt", "frames.txt", "images.txt", "points3D.txt", "project.ini", "rigs.txt"]
    assert sorted(p.name for p in folder.iterdir()) == kept


def test_an_unwritable_folder(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        colmap.write(model, tmp_path / "file")


def read_with(small, tmp_path, name: str, content: bytes) -> SparseModel:
    """The model when one file has other bytes."""
    for file in BINARY if name.endswith(".bin") else TEXT:
        (tmp_path / file).write_bytes((small / file).read_bytes())
    (tmp_path / name).write_bytes(content)
    return colmap.read(tmp_path)


FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("name", BINARY)
def test_no_truncation_is_accepted(small, tmp_path, name):
    whole = (small / name).read_bytes()
    for length in {*range(0, len(whole), max(1, len(whole) // 150)), len(whole) - 1}:
        with pytest.raises(InputError, match=name.replace(".", r"\.")):
            read_with(small, tmp_path, name, whole[:length])
    with pytest.raises(InputError, match="1 bytes too many"):
        read_with(small, tmp_path, name, whole + b"\0")


@FUZZ
@given(name=st.sampled_from(BINARY), data=st.data())
def test_fuzzed_binary_files(small, tmp_path, name, data):
    content = bytearray((small / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        patch = data.draw(st.binary(min_size=1, max_size=9) | st.just(b"\xff" * 8))
        content[place : place + len(patch)] = patch
    try:
        model = read_with(small, tmp_path, name, bytes(content))
    except InputError as error:
        assert str(tmp_path) in str(error) and "\n" not in str(error)
    else:
        assert model.track_lengths.sum() == (model.observation_point >= 0).sum()


@FUZZ
@given(name=st.sampled_from(BINARY), content=st.binary(max_size=400))
@example(name="images.bin", content=b"\xff" * 100)
@example(name="points3D.bin", content=(2**60).to_bytes(8, "little") + bytes(400))
@example(name="points3D.bin", content=(1).to_bytes(8, "little") + b"\xff" * 51)
def test_noise_instead_of_a_binary_file(small, tmp_path, name, content):
    with pytest.raises(InputError):
        read_with(small, tmp_path, name, content)


@FUZZ
@given(name=st.sampled_from(TEXT), data=st.data())
def test_fuzzed_text_files(small, tmp_path, name, data):
    content = (small / name).read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    words = [b" ", b"\n", b"-", b"1e999", b"nan", b"9" * 30, b"9" * 5000, b"\0", b"\xff", b"1_0"]
    patch = data.draw(st.sampled_from(words) | st.binary(max_size=5))
    cut = data.draw(st.integers(0, 12) | st.just(len(content)))
    try:
        read_with(small, tmp_path, name, content[:place] + patch + content[place + cut :])
    except InputError as error:
        assert str(tmp_path) in str(error) and "\n" not in str(error)
