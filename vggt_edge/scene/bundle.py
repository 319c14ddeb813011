"""Bundle adjustment by pycolmap: cameras and points that explain measured sightings best."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from .. import geometry
from ..errors import InputError, MissingExtraError, NumericError
from ..geometry import Similarity
from ..sparse_model import SparseModel
from ..types import Scene
from .georeference import similarity_to_cameras
from .measure import measure_observations
from .tracks import build_sparse_model

# Sightings beyond this many source pixels pull less and less.
_LOSS_PIXELS = 1.0
# Views with fewer sightings stay where they are.
_LEAST_SIGHTINGS = 30


def bundle_adjust(
    model: SparseModel, *, refine_focal_length: bool = True, max_iterations: int = 100
) -> SparseModel:
    """Minimise the robust reprojection error of all sightings (Triggs et al. 2000), by Ceres.

    The result lies in the world of the input: it is moved back by the similarity between old and
    new cameras, which reprojection cannot tell.

    Args:
        model: with measured sightings; see ``measure_observations``.
        refine_focal_length: of each camera; images with one ``camera_index`` share it.
        max_iterations: of the solver.

    Raises:
        InputError: no point is seen by two images.
        MissingExtraError: pycolmap is not installed.
        NumericError: the solver found nothing usable.
    """
    try:
        import pycolmap
    except ImportError as error:
        raise MissingExtraError("pycolmap", "bundle", "bundle adjustment") from error
    if not (model.track_lengths >= 2).any():
        raise InputError("bundle adjustment needs points that two images see")
    reconstruction, ids = _to_pycolmap(pycolmap, model)
    options = pycolmap.BundleAdjustmentOptions()
    options.refine_focal_length = refine_focal_length
    options.refine_principal_point = options.refine_extra_params = False
    options.print_summary = False
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = _LOSS_PIXELS
    options.ceres.solver_options.max_num_iterations = max_iterations
    config = pycolmap.BundleAdjustmentConfig()
    for i, sightings in enumerate(model.observation_counts.tolist()):
        if sightings:
            config.add_image(i + 1)
        if 0 < sightings < _LEAST_SIGHTINGS:
            config.set_constant_rig_from_world_pose(i + 1)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    adjuster = pycolmap.create_default_bundle_adjuster(options, config, reconstruction)
    if not adjuster.solve().is_solution_usable():
        raise NumericError("bundle adjustment found no usable solution")
    return _from_pycolmap(reconstruction, ids, model)


def _to_pycolmap(pycolmap: Any, model: SparseModel) -> tuple[Any, list[int]]:
    """The model, pixel for pixel in our convention, and the number of each point there."""
    reconstruction = pycolmap.Reconstruction()
    for camera in np.unique(model.camera_index).tolist():
        matrix = model.cameras.intrinsics[model.camera_index == camera][0]
        height, width = model.cameras.sizes[model.camera_index == camera][0].tolist()
        reconstruction.add_camera_with_trivial_rig(
            pycolmap.Camera(
                camera_id=camera + 1,
                model="PINHOLE",
                width=width,
                height=height,
                params=[matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]],
            )
        )
    ends = np.cumsum(model.observation_counts)
    starts = ends - model.observation_counts
    for i, pose in enumerate(model.cameras.camera_from_world):
        reconstruction.add_image_with_trivial_frame(
            pycolmap.Image(
                name=model.names[i],
                keypoints=model.observations[starts[i] : ends[i]],
                camera_id=int(model.camera_index[i]) + 1,
                image_id=i + 1,
            ),
            pycolmap.Rigid3d(pycolmap.Rotation3d(pose[:, :3]), pose[:, 3]),
        )
    order = np.argsort(model.observation_point, kind="stable")
    bounds = np.searchsorted(model.observation_point[order], np.arange(len(model.points) + 1))
    ids = []
    for point, (start, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        track = pycolmap.Track()
        for row in order[start:end].tolist():
            image = int(model.observation_image[row])
            track.add_element(image + 1, row - int(starts[image]))
        ids.append(reconstruction.add_point3D(model.points[point], track, model.colors[point]))
    return reconstruction, ids


def _from_pycolmap(reconstruction: Any, ids: list[int], model: SparseModel) -> SparseModel:
    poses, intrinsics = model.cameras.camera_from_world.copy(), model.cameras.intrinsics.copy()
    for i, camera in enumerate(model.camera_index.tolist()):
        poses[i] = reconstruction.images[i + 1].cam_from_world().matrix()
        fx, fy, cx, cy = reconstruction.cameras[camera + 1].params
        intrinsics[i, 0, 0], intrinsics[i, 1, 1] = fx, fy
        intrinsics[i, 0, 2], intrinsics[i, 1, 2] = cx, cy
    cameras = replace(model.cameras, camera_from_world=poses, intrinsics=intrinsics)
    back = similarity_to_cameras(cameras, model.cameras)
    adjusted = replace(
        model,
        cameras=replace(cameras, camera_from_world=back.apply_to_cameras(poses)),
        points=back.apply(np.array([reconstruction.points3D[number].xyz for number in ids])),
    )
    errors = np.nan_to_num(adjusted.reprojection_errors(), nan=0.0)
    total = np.bincount(adjusted.observation_point, errors, len(ids))
    return replace(adjusted, errors=total / np.maximum(adjusted.track_lengths, 1))


def bundle_adjust_scene(
    scene: Scene, *, rounds: int = 3, target_points: int = 20_000, shared_camera: bool = False
) -> Scene:
    """A scene whose cameras have been adjusted to its pictures, and its depths to the cameras.

    Each view's depth is multiplied by one factor, the median over the points it sees. Views that
    see too few points keep camera and depth.

    Args:
        scene: with cameras and depth.
        rounds: how often to match and adjust; better cameras let more sightings be matched.
        target_points: about how many points to track.
        shared_camera: pictures of one size share their focal length.

    Raises:
        InputError: no two views see the same point well enough.
        MissingExtraError: pycolmap is not installed.
    """
    for _ in range(rounds):
        model = build_sparse_model(scene, target_points=target_points, shared_camera=shared_camera)
        measured = measure_observations(model, scene)
        scene = _apply(scene, measured, bundle_adjust(measured))
    return scene


def _apply(scene: Scene, measured: SparseModel, adjusted: SparseModel) -> Scene:
    prediction, views = scene.prediction, scene.views
    assert prediction.cameras is not None and prediction.depth is not None
    poses, intrinsics = (
        prediction.cameras.camera_from_world.copy(),
        prediction.cameras.intrinsics.copy(),
    )
    depth = prediction.depth.copy()
    ends = np.cumsum(measured.observation_counts)
    inverse = np.linalg.inv(views.source_from_view)
    for i, (start, end) in enumerate(zip(ends - measured.observation_counts, ends, strict=True)):
        seen = measured.observation_point[start:end]
        if len(seen) < _LEAST_SIGHTINGS:
            continue
        before = geometry.transform(poses[i], measured.points[seen])[:, 2]
        after = geometry.transform(adjusted.cameras.camera_from_world[i], adjusted.points[seen])
        poses[i] = adjusted.cameras.camera_from_world[i]
        intrinsics[i] = inverse[i] @ adjusted.cameras.intrinsics[i]
        depth[i] *= np.median(after[:, 2] / before)
    # Points move with the view that saw them.
    cameras = replace(prediction.cameras, camera_from_world=poses, intrinsics=intrinsics)
    points = np.empty_like(scene.points)
    for i in np.unique(scene.view_index).tolist():
        mine = scene.view_index == i
        column, row = scene.pixel[mine].T
        world = geometry.unproject(depth[i], intrinsics[i], poses[i])
        points[mine] = world[row, column]
    # The first camera stays the world's frame, where it was.
    home = geometry.compose_rigid(
        geometry.invert_rigid(prediction.cameras.camera_from_world[0]), poses[0]
    )
    settle = Similarity(1.0, home[:, :3], home[:, 3])
    return replace(
        scene,
        prediction=replace(
            prediction,
            cameras=replace(cameras, camera_from_world=settle.apply_to_cameras(poses)),
            depth=depth,
            points=None,
            points_confidence=None,
        ),
        points=settle.apply(points).astype(np.float32),
    )
