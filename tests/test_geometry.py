from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from vggt_edge import geometry
from vggt_edge.geometry import Similarity, fit_similarity


def floats(low: float, high: float):
    return st.floats(low, high, allow_subnormal=False)


def vectors(*shape: int, span: float = 10):
    return arrays(np.float64, shape, elements=floats(-span, span))


def rotations(*batch: int):
    """(*batch, 3, 3) rotation matrices, the identity and half turns among them."""
    quaternions = arrays(np.float64, (*batch, 4), elements=floats(-1, 1))
    return quaternions.filter(lambda q: (np.linalg.norm(q, axis=-1) > 0.1).all()).map(
        lambda q: Rotation.from_quat(q.reshape(-1, 4)).as_matrix().reshape(*batch, 3, 3)
    )


def poses(*batch: int):
    parts = st.tuples(rotations(*batch), vectors(*batch, 3, 1))
    return parts.map(lambda both: np.concatenate(both, axis=-1))


similarities = st.builds(Similarity, floats(0.1, 10), rotations(), vectors(3))


# Quaternions


@given(arrays(np.float64, (5, 4), elements=floats(-3, 3)))
def test_quaternion_to_matrix_is_scipys(quaternion):
    assume((np.linalg.norm(quaternion, axis=-1) > 1e-3).all())
    expected = Rotation.from_quat(quaternion).as_matrix()
    assert np.allclose(geometry.quaternion_to_matrix(quaternion), expected, atol=1e-12)


@given(rotations(2, 3))
def test_quaternions_round_trip(rotation):
    quaternion = geometry.matrix_to_quaternion(rotation)
    assert quaternion.shape == (2, 3, 4)
    assert np.allclose(np.linalg.norm(quaternion, axis=-1), 1)
    assert (quaternion[..., 3] >= 0).all()
    assert np.allclose(geometry.quaternion_to_matrix(quaternion), rotation, atol=1e-9)


@pytest.mark.parametrize("axis", range(3))
def test_half_turns_have_quaternions(axis):
    """Where w is zero, which formulas that divide by it do not survive."""
    rotation = -np.eye(3)
    rotation[axis, axis] = 1
    expected = np.zeros(4)
    expected[axis] = 1
    assert np.allclose(np.abs(geometry.matrix_to_quaternion(rotation)), expected)


def test_a_matrix_slightly_off_gives_the_nearest_rotation():
    rotation = Rotation.from_rotvec([0.3, -0.2, 1]).as_matrix()
    noise = np.random.default_rng(0).normal(scale=1e-4, size=(3, 3))
    quaternion = geometry.matrix_to_quaternion(rotation + noise)
    assert np.allclose(geometry.quaternion_to_matrix(quaternion), rotation, atol=3e-4)


# Rigid transforms


@given(poses(4), poses(4), vectors(4, 7, 3))
def test_rigid_transforms_form_a_group(a_from_b, b_from_c, points):
    identity = np.eye(3, 4)
    inverse = geometry.invert_rigid(a_from_b)
    assert np.allclose(geometry.compose_rigid(a_from_b, inverse), identity, atol=1e-9)
    assert np.allclose(geometry.compose_rigid(inverse, a_from_b), identity, atol=1e-9)
    a_from_c = geometry.compose_rigid(a_from_b, b_from_c)
    one_by_one = geometry.transform(a_from_b, geometry.transform(b_from_c, points))
    assert np.allclose(geometry.transform(a_from_c, points), one_by_one, atol=1e-9)


# Cameras


@st.composite
def pinholes(draw, count=3):
    intrinsics = np.tile(np.eye(3), (count, 1, 1))
    intrinsics[:, 0, 0] = draw(arrays(np.float64, count, elements=floats(5, 50)))
    intrinsics[:, 1, 1] = draw(arrays(np.float64, count, elements=floats(5, 50)))
    intrinsics[:, :2, 2] = draw(arrays(np.float64, (count, 2), elements=floats(-5, 15)))
    return intrinsics


@given(arrays(np.float64, (3, 4, 6), elements=floats(0.1, 20)), pinholes(), poses(3))
def test_project_inverts_unproject(depth, intrinsics, camera_from_world):
    world = geometry.unproject(depth, intrinsics, camera_from_world)
    assert world.shape == (3, 4, 6, 3)
    back = geometry.project(world.reshape(3, 24, 3), intrinsics, camera_from_world)
    row, column = np.mgrid[:4, :6]
    assert np.allclose(back[..., 0].reshape(3, 4, 6), column, atol=1e-6)
    assert np.allclose(back[..., 1].reshape(3, 4, 6), row, atol=1e-6)
    assert np.allclose(back[..., 2].reshape(3, 4, 6), depth, atol=1e-9)


def test_project_by_hand():
    intrinsics = np.array([[10.0, 0, 4], [0, 20, 3], [0, 0, 1]])
    camera_from_world = np.eye(3, 4)
    camera_from_world[2, 3] = 1  # the world's origin is one in front of the camera
    points = np.array([[0.0, 0, 0], [2, 1, 3], [0, 0, -2]])
    found = geometry.project(points, intrinsics, camera_from_world)
    assert np.allclose(found, [[4, 3, 1], [9, 8, 4], [4, 3, -1]])


def test_points_in_the_camera_plane_project_without_warnings():
    found = geometry.project(np.array([[1.0, 0, 0], [0, 0, 0]]), np.eye(3), np.eye(3, 4))
    assert np.isfinite(found).all()
    assert np.array_equal(found[:, 2], [0, 0])


@given(poses(3), pinholes())
def test_arguments_are_left_alone(pose, intrinsics):
    before = pose.copy(), intrinsics.copy()
    world = geometry.unproject(np.ones((3, 2, 2)), intrinsics, pose)
    geometry.project(world.reshape(3, 4, 3), intrinsics, pose)
    assert np.array_equal(pose, before[0])
    assert np.array_equal(intrinsics, before[1])


# Similarities


def spread(points: np.ndarray) -> float:
    """Smallest extent of the points: zero when they lie in a line."""
    return float(np.linalg.svd(points - points.mean(0), compute_uv=False)[1])


@given(vectors(6, 3), similarities, st.booleans())
def test_a_similarity_is_recovered(points, true, with_scale):
    assume(spread(points) > 0.5)
    true = true if with_scale else true._replace(scale=1.0)
    found = fit_similarity(points, true.apply(points), with_scale=with_scale)
    assert found.scale == pytest.approx(true.scale)
    assert np.allclose(found.rotation, true.rotation, atol=1e-6)
    assert np.allclose(found.translation, true.translation, atol=1e-5)


@given(vectors(6, 3), vectors(6, 3), st.booleans())
def test_the_fit_is_a_rotation_and_no_worse_than_others(source, target, with_scale):
    assume(spread(source) > 0.5)
    found = fit_similarity(source, target, with_scale=with_scale)
    assert np.allclose(found.rotation @ found.rotation.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(found.rotation) == pytest.approx(1)

    def cost(fit: Similarity) -> float:
        return float(np.sum((fit.apply(source) - target) ** 2))

    best = cost(found)
    for rotvec in (*np.eye(3), *-np.eye(3)):
        nudge = Rotation.from_rotvec(0.01 * rotvec).as_matrix()
        turned = found._replace(rotation=found.rotation @ nudge)
        # Turned about the points and not the origin: at its own best translation.
        moved = target.mean(0) - turned.scale * turned.rotation @ source.mean(0)
        assert best <= cost(turned._replace(translation=moved)) + 1e-9
        assert best <= cost(found._replace(translation=found.translation + 0.01 * rotvec)) + 1e-9


def test_a_mirror_image_is_fitted_by_a_rotation():
    points = np.random.default_rng(1).normal(size=(20, 3)) * [3, 2, 1]
    found = fit_similarity(points, points * [1, 1, -1])
    assert np.linalg.det(found.rotation) == pytest.approx(1)
    # Mirroring the thinnest axis is best answered by leaving all where it is.
    assert np.allclose(found.rotation, np.eye(3), atol=0.35)
    assert 0 < found.scale < 1


@given(similarities)
def test_points_in_a_plane_are_enough(true):
    points = np.array([[0.0, 0, 0], [2, 0, 0], [0, 1, 0]])
    found = fit_similarity(points, true.apply(points))
    assert np.allclose(found.rotation, true.rotation, atol=1e-6)
    assert found.scale == pytest.approx(true.scale)


def test_points_in_a_line_are_mapped_onto_each_other():
    """The turn about the line is anybody's guess; where the points go is not."""
    line = np.linspace(-1, 3, 5)[:, None] * [1.0, 2, 2]
    true = Similarity(2.0, Rotation.from_rotvec([1, 2, 3]).as_matrix(), np.array([1.0, 2, 3]))
    found = fit_similarity(line, true.apply(line))
    assert np.linalg.det(found.rotation) == pytest.approx(1)
    assert np.allclose(found.apply(line), true.apply(line))


def test_weights_silence_an_outlier():
    random = np.random.default_rng(2)
    points = random.normal(size=(8, 3))
    true = Similarity(0.5, Rotation.random(rng=random).as_matrix(), np.ones(3))
    target = true.apply(points)
    target[3] += 100
    weights = np.ones(8)
    weights[3] = 0
    found = fit_similarity(points, target, weights)
    assert np.allclose(found.apply(points)[weights > 0], target[weights > 0])
    doubled = fit_similarity(points, target, 2 * weights)
    assert np.allclose(doubled.rotation, found.rotation)


@given(similarities, vectors(4, 5, 3), poses(4), pinholes(4))
def test_cameras_follow_the_world(similarity, points, camera_from_world, intrinsics):
    """Camera coordinates of moved points are those of the old ones, scaled."""
    moved = similarity.apply_to_cameras(camera_from_world)
    before = geometry.transform(camera_from_world, points)
    after = geometry.transform(moved, similarity.apply(points))
    assert np.allclose(after, similarity.scale * before, atol=1e-7)
    centers = geometry.invert_rigid(camera_from_world)[..., 3]
    assert np.allclose(geometry.invert_rigid(moved)[..., 3], similarity.apply(centers), atol=1e-7)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_points(count):
    with pytest.raises(ValueError, match=f"at least 3 points, got {count}"):
        fit_similarity(np.zeros((count, 3)), np.zeros((count, 3)))


@pytest.mark.parametrize("place", [0.0, 0.1, 1e6 + 0.1, -1e-3])
def test_points_all_in_one_place(place):
    with pytest.raises(ValueError, match="one place"):
        fit_similarity(np.full((3, 3), place), np.eye(3))


def test_weights_that_are_all_zero():
    with pytest.raises(ValueError, match="weights"):
        fit_similarity(np.eye(3), np.eye(3), np.zeros(3))
