"""7-Scenes: seven rooms filmed with a Kinect v1, tracked by KinectFusion.

Shotton et al., "Scene Coordinate Regression Forests for Camera Relocalization in RGB-D Images",
CVPR 2013. Layout and encodings: the readme inside each archive, as read by
``mast3r_slam/dataloader.py`` of rmurai0610/MASt3R-SLAM (focal length 585),
``spann3r/datasets/seven_scenes.py`` of HengyiWang/spann3r and ``datasets/sevenscenes.py`` of
yyfz/Pi3, branch evaluation (525 and ``depth.proj.png``), ``evaluation/eval/data.py`` of
wlfeng0509/QuantVGGT (525 and ``depth.png``).

The colour camera (focal length about 525) and the depth camera (585) are two, 2.5 cm apart, and the
archives hold depth as the latter saw it. Which one is called *the* camera is a choice that shifts
scores, so it is part of the split's name.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...recording import Recording
from ..dataset_files import (
    check_root,
    malformed,
    parsing,
    picture_size,
    read_text,
    resized,
    rigid,
    wrong_root,
)
from ..rgbd_files import by_number, one_lens, read_depth, read_matrix
from . import Dataset

SCENES = ("chess", "fire", "heads", "office", "pumpkin", "redkitchen", "stairs")
NO_DEPTH = 65535


class _Convention(NamedTuple):
    """List of sequences, focal length in pixels of 640, and ending of the depth maps."""

    list_file: str
    focal: float
    depth: str


_TEST, _TRAIN = "TestSplit.txt", "TrainSplit.txt"
SPLITS = {
    "test": _Convention(_TEST, 585.0, "depth.png"),
    "train": _Convention(_TRAIN, 585.0, "depth.png"),
    "test-525": _Convention(_TEST, 525.0, "depth.png"),
    "test-proj": _Convention(_TEST, 525.0, "depth.proj.png"),
}


def read(root: Path, split: str) -> list[Recording]:
    """Sequences of the scenes that are there, named SCENE/seq-XX: 18 of "test" in all.

    "test" and "train" are the depth camera: focal length 585 and depth as recorded, consistent in
    itself. "test-525" pairs that depth with the colour camera's 525, as QuantVGGT's script does.
    "test-proj" has 525 and ``depth.proj.png``, depth reprojected into the colour camera by
    SimpleRecon's preprocessing: the truth of Spann3R's, CUT3R's and pi3's tables.

    Raises:
        InputError: the root is missing or not of this layout, a file is malformed.
    """
    root = check_root(DATASET, root, split)
    convention = SPLITS[split]
    recordings = []
    for scene in SCENES:
        listed = root / scene / convention.list_file
        if not (root / scene).is_dir():
            continue
        if not listed.is_file():
            raise wrong_root(DATASET, root, f"lacks {scene}/{convention.list_file}")
        for number in _sequences(listed):
            name = f"{scene}/seq-{number:02d}"
            if not (root / name).is_dir():
                raise wrong_root(DATASET, root, f"lacks {name}, which {listed.name} names")
            recordings.append(_recording(root, name, convention))
    if not recordings:
        raise wrong_root(DATASET, root, "holds none of the seven scenes")
    return recordings


def _sequences(path: Path) -> list[int]:
    """Numbers of the lines "sequence1"."""
    with parsing(path, "a list of lines like sequence1"):
        return [int(line.removeprefix("sequence")) for line in read_text(path).split()]


def _recording(root: Path, name: str, convention: _Convention) -> Recording:
    folder = root / name
    frames = by_number(folder, r"frame-(\d{6})\.color\.png")
    if not frames:
        raise wrong_root(DATASET, root, f"has no frame-XXXXXX.color.png in {name}")
    depths = [folder / f"frame-{i:06d}.{convention.depth}" for i in frames]
    if missing := next((path for path in depths if not path.is_file()), None):
        raise wrong_root(DATASET, root, f"lacks {missing.relative_to(root)}")
    poses = []
    for i in frames:
        path = folder / f"frame-{i:06d}.pose.txt"
        with parsing(path, "a camera pose"):
            poses.append(rigid(read_matrix(path, 4, 4)))
    paths = tuple(frames.values())
    size = picture_size(paths[0])
    intrinsics = np.array([[convention.focal, 0, 320], [0, convention.focal, 240], [0, 0, 1]])
    try:
        intrinsics = resized(intrinsics, (480, 640), size)
    except ValueError as error:
        raise malformed(paths[0], str(error)) from None
    return Recording(
        name,
        paths,
        one_lens(intrinsics, np.stack(poses), size),
        depth=lambda i: read_depth(depths[i], 0.001, (NO_DEPTH,)),
    )


DATASET = Dataset(
    name="7scenes",
    title="7-Scenes",
    fetch=(
        "download the seven zips of microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes "
        "(non-commercial research), unpack each and the seq-XX.zip inside; the root then holds "
        "chess, fire, heads, office, pumpkin, redkitchen, stairs, each with TrainSplit.txt, "
        "TestSplit.txt and seq-XX/frame-XXXXXX.color.png, .depth.png, .pose.txt; split test-proj "
        "also needs the frame-XXXXXX.depth.proj.png that data_scripts/7scenes_preprocessing.py of "
        "github.com/nianticlabs/simplerecon writes"
    ),
    splits=tuple(SPLITS),
    read=read,
)
