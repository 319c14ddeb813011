"""Neural RGB-D: nine rendered rooms with exact depth and poses.

Azinovic et al., "Neural RGB-D Surface Reconstruction", CVPR 2022. Layout: the README and
``dataloader_util.py`` of dazinovic/neural-rgbd-surface-reconstruction; units and axes also
``spann3r/datasets/nrgbd.py`` of HengyiWang/spann3r and ``datasets/nrgbd.py`` of yyfz/Pi3.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...recording import Recording
from ..dataset_files import (
    check_root,
    malformed,
    parsing,
    picture_size,
    read_text,
    rigid,
    wrong_root,
)
from ..rgbd_files import by_number, one_lens, read_depth, read_matrix
from . import Dataset

SCENES = (
    *("breakfast_room", "complete_kitchen", "green_room", "grey_white_room", "kitchen"),
    *("morning_apartment", "staircase", "thin_geometry", "whiteroom"),
)
"""The nine rendered scenes, which the tables are about."""
_OPENCV_FROM_OPENGL = np.array([1.0, -1.0, -1.0])


def read(root: Path, split: str) -> list[Recording]:
    """Scenes that are there: of the nine rendered ones, or every folder of the layout ("all").

    Depth is the exact one, ``depth``, not ``depth_filtered`` or ``depth_with_noise``. The principal
    point is the middle (W / 2, H / 2), as in NeRF. Frames without a pose (nan) are left out.

    Raises:
        InputError: the root is missing or not of this layout, a file is malformed.
    """
    root = check_root(DATASET, root, split)
    names = SCENES if split == "rendered" else sorted(path.name for path in root.iterdir())
    found = [name for name in names if (root / name / "poses.txt").is_file()]
    if not found:
        raise wrong_root(DATASET, root, f"holds no scene of the split {split}")
    return [_recording(root, name) for name in found]


def _poses(path: Path) -> list[np.ndarray | None]:
    """World from camera in OpenCV axes of 4N lines of four numbers; None for those of nan."""
    with parsing(path, "camera poses"):
        rows = np.array(read_text(path).split(), dtype=np.float64).reshape(-1, 4, 4)
        rows[:, :3, :3] *= _OPENCV_FROM_OPENGL
        return [rigid(pose) if np.isfinite(pose).all() else None for pose in rows]


def _recording(root: Path, name: str) -> Recording:
    folder = root / name
    for part in ("images", "depth"):
        if not (folder / part).is_dir():
            raise wrong_root(DATASET, root, f"lacks {name}/{part}")
    pictures = by_number(folder / "images", r"img(\d+)\.png")
    depths = by_number(folder / "depth", r"depth(\d+)\.png")
    poses = _poses(folder / "poses.txt")
    if not pictures or pictures.keys() != depths.keys() or max(pictures) >= len(poses):
        raise malformed(
            folder / "poses.txt",
            f"{len(poses)} poses, {len(pictures)} images and {len(depths)} depth maps do not match",
        )
    posed = {i: pose for i in pictures if (pose := poses[i]) is not None}
    if not posed:
        raise malformed(folder / "poses.txt", "every pose is nan")
    height, width = size = picture_size(pictures[min(posed)])
    focal = float(read_matrix(folder / "focal.txt", 1, 1)[0, 0])
    if not 0 < focal < 1e9:
        raise malformed(folder / "focal.txt", f"a focal length of {focal:g}")
    # NeRF's rays: pixel i looks along (i - W / 2) / focal.
    intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    maps = [depths[i] for i in posed]
    return Recording(
        name,
        tuple(pictures[i] for i in posed),
        one_lens(intrinsics, np.stack(list(posed.values())), size),
        depth=lambda i: read_depth(maps[i], 0.001),
    )


DATASET = Dataset(
    name="nrgbd",
    title="Neural RGB-D",
    fetch=(
        "download kaldir.vc.in.tum.de/neural_rgbd/neural_rgbd_data.zip (7.25 GB; the scenes are "
        "CC BY or CC0, see github.com/dazinovic/neural-rgbd-surface-reconstruction) and unpack it; "
        "the root then holds breakfast_room, complete_kitchen, ..., whiteroom, each with "
        "images/imgN.png, depth/depthN.png, poses.txt and focal.txt"
    ),
    splits=("rendered", "all"),
    read=read,
)
