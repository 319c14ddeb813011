from __future__ import annotations

import warnings

import numpy as np
import pytest
from known_scene import make_scene

from vggt_edge.errors import MissingExtraError
from vggt_edge.outputs import rerun


def columns(path):
    """Entity -> component -> values, read back with rerun's own chunk reader."""
    from rerun.chunk import RrdReader

    found: dict[str, dict[str, object]] = {}
    for chunk in RrdReader(path).stream():
        batch = chunk.to_record_batch()
        for name in batch.schema.names:
            found.setdefault(chunk.entity_path, {})[name] = batch.column(name).to_pylist()
    return found


def test_the_recording_holds_cameras_pictures_depth_and_points(tmp_path):
    pytest.importorskip("rerun.chunk")
    scene = make_scene()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = rerun.write(scene, tmp_path / "scene.rrd")
    found = columns(path)
    points = found["/world/points"]
    np.testing.assert_array_equal(points["Points3D:positions"][0], scene.points)
    packed = scene.colors.astype(np.uint32) @ np.array([1 << 24, 1 << 16, 1 << 8], np.uint32) + 255
    np.testing.assert_array_equal(points["Points3D:colors"][0], packed)
    entities = sorted(e for e in found if e.endswith("/depth"))
    assert len(entities) == 3
    left = found["/world/left"]
    k = np.reshape(left["Pinhole:image_from_camera"][0], (3, 3)).T
    np.testing.assert_allclose(k, scene.cameras.intrinsics[0], rtol=1e-6)
    assert left["Pinhole:resolution"][0] == [[32, 24]]
    middle = found["/world/middle"]
    center = middle["Transform3D:translation"][0][0]
    np.testing.assert_allclose(center, scene.cameras.centers[1], rtol=1e-6)
    rotation = np.reshape(middle["Transform3D:mat3x3"][0], (3, 3)).T
    np.testing.assert_allclose(rotation, scene.cameras.world_from_camera[1, :, :3], atol=1e-6)
    depth = np.frombuffer(bytes(found["/world/left/depth"]["DepthImage:buffer"][0][0]), np.float32)
    shown = np.where(scene.views.valid_mask()[0], scene.prediction.depth[0], 0)
    np.testing.assert_array_equal(depth, shown.ravel())


def test_without_rerun_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rerun", None)
    with pytest.raises(MissingExtraError, match=r"vggt-edge\[rerun\]"):
        rerun.write(make_scene(), tmp_path / "scene.rrd")
