"""Procedural worlds that training and its validation never draw, rendered once and kept.

A scene is a folder SPLIT/KIND/NN of the root in the form of ``cameras_json``. What is missing is
rendered on the CPU, so that the same version of the generator makes the same pixels everywhere.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from ... import geometry, worlds
from ...errors import InputError
from ...files import check_writable, replacing
from ...recording import Recording
from ..dataset_files import check_root, parsing, read_json
from . import Dataset, cameras_json

# Training draws seeds below 2^40, its validation counts up from 2^41.
TEST_SEED = 2**43
WALK_SEED = 2**44
OVERLAP = 0.7
"""Of neighbouring views of the test scenes; that of the validation."""

# 65535 counts mean "unknown" elsewhere.
_MOST_COUNTS = 65534


class Plan(NamedTuple):
    """What a split holds.

    Fields
        folder  below the root, where its scenes lie.
        kinds   of scenes.
        scenes  of each kind.
        views   of each scene.
        size    height and width of the views.
        walk    along a path, 6 cm or so a view, rather than a set around something.
    """

    folder: str
    kinds: tuple[str, ...]
    scenes: int
    views: int
    size: int
    walk: bool


SPLITS = {
    "test-224": Plan("test-224", worlds.KINDS, 8, 8, 224, False),
    "test-112": Plan("test-112", worlds.KINDS, 8, 8, 112, False),
    "walk-112": Plan("walk-112", worlds.KINDS, 1, 200, 112, True),
    "walk-224": Plan("walk-224", worlds.KINDS, 1, 200, 224, True),
    **{f"{kind}-224": Plan("test-224", (kind,), 8, 8, 224, False) for kind in worlds.KINDS},
}


def read(root: Path, split: str) -> list[Recording]:
    """Scenes of the split, named KIND/NN; those that are not in the root are rendered first.

    "test-SIZE" are 48 sets of 8 views with the effects of a camera, the same scenes in either size;
    "walk-SIZE" are paths of 200 views without such effects, one a kind; "KIND-224" is that kind's
    part of "test-224", for a model that was trained without it.

    Raises:
        InputError: there is no such split, a file is malformed, or a scene was rendered by another
            version of the generator.
        OutputError: the root cannot be written.
    """
    root = Path(root).expanduser()
    if split in SPLITS:
        check_writable(root)
        root.mkdir(parents=True, exist_ok=True)
    root = check_root(DATASET, root, split)
    plan, generator = SPLITS[split], _generator()
    names = [f"{kind}/{number:02d}" for kind in plan.kinds for number in range(plan.scenes)]
    folders = {name: root / plan.folder / name for name in names}
    missing = [name for name, folder in folders.items() if not _is_done(folder, generator)]
    with tqdm(missing, desc=f"render {split}", unit="scene", leave=False, disable=None) as bar:
        for name in bar:
            _render(plan, name, folders[name], generator)
    return [cameras_json.read_folder(folder, name) for name, folder in folders.items()]


def _generator() -> str:
    """A digest of the generator's source: another one may draw other pixels."""
    digest = hashlib.sha256()
    for path in sorted(Path(worlds.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _is_done(folder: Path, generator: str) -> bool:
    path = folder / cameras_json.FILE
    if not path.is_file():
        return False
    with parsing(path, "a rendered scene"):
        rendered_by = read_json(path)["generator"]
    if rendered_by != generator:
        raise InputError(
            f"{folder} was rendered by another version of the generator; "
            f"delete {folder.parents[1]} or choose another root"
        )
    return True


def seed_of(plan: Plan, name: str) -> int:
    """The generator's seed of the scene called KIND/NN; the same in every size."""
    kind, number = name.split("/")
    base = WALK_SEED if plan.walk else TEST_SEED
    return base + worlds.KINDS.index(kind) * 1000 + int(number)


def _render(plan: Plan, name: str, folder: Path, generator: str) -> None:
    """Write a scene; its cameras.json comes last, and says that it is whole."""
    kind, seed = name.split("/")[0], seed_of(plan, name)
    if plan.walk:
        batch = worlds.walk(seed, plan.views, plan.size, plan.size, kind=kind)
    else:
        batch = worlds.render(
            seed, 1, plan.views, plan.size, plan.size, kinds=(kind,), overlap=OVERLAP
        )
    pixels = (batch.images[0].permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
    depth = batch.depth[0].double().numpy()
    unit = max(float(depth.max()), 1.0) / _MOST_COUNTS
    poses = geometry.invert_rigid(batch.camera_from_world[0].double().numpy())
    frames = []
    for index in range(plan.views):
        frame = {"image": f"images/{index:04d}.png", "depth": f"depth/{index:04d}.png"}
        counts = np.where(depth[index] > 0, (depth[index] / unit).round().clip(1), 0)
        for place, values in (
            (frame["image"], pixels[index]),
            (frame["depth"], counts.astype(np.uint16)),
        ):
            with replacing(folder / place) as temporary:
                Image.fromarray(values).save(temporary, compress_level=4)
        frames.append(
            {
                **frame,
                "w": plan.size,
                "h": plan.size,
                "K": batch.intrinsics[0, index].double().tolist(),
                "c2w": [*poses[index].tolist(), [0.0, 0.0, 0.0, 1.0]],
            }
        )
    content = {
        "name": name,
        "pose_convention": "OpenCV camera-to-world (x right, y down, z forward), 4x4",
        "depth_unit_m": unit,
        "metric": True,
        "generator": generator,
        "seed": seed,
        "frames": frames,
    }
    with replacing(folder / cameras_json.FILE) as temporary:
        temporary.write_text(json.dumps(content, allow_nan=False))


DATASET = Dataset(
    name="worlds",
    title="Procedural worlds",
    fetch=(
        "nothing needs fetching: name a folder that can be written, and the scenes are rendered "
        "into it as SPLIT/KIND/NN with cameras.json, images and depth"
    ),
    splits=tuple(SPLITS),
    read=read,
)
