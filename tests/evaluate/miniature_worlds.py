"""A few procedural worlds on disk, each a folder with a ``cameras.json``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from vggt_edge import geometry, worlds

UNIT = 1e-3


def write_world(
    folder: Path,
    kind: str,
    seed: int = 11,
    views: int = 3,
    size: tuple[int, int] = (56, 56),
    posed: bool = True,
    measured: bool = True,
) -> Path:
    """One scene; without ``posed`` its cameras are unknown, without ``measured`` its depth."""
    batch = worlds.render(seed, 1, views, *size, kinds=(kind,), overlap=0.85)
    images = (batch.images[0].permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
    depth = np.rint(batch.depth[0].numpy() / UNIT).clip(0, 65534).astype(np.uint16)
    poses = geometry.invert_rigid(batch.camera_from_world[0].double().numpy())
    folder.mkdir(parents=True)
    frames = []
    for index in range(views):
        frame = {"image": f"{index}.png", "w": size[1], "h": size[0], "K": None, "c2w": None}
        Image.fromarray(images[index]).save(folder / f"{index}.png")
        if measured:
            frame["depth"] = f"depth{index}.png"
            Image.fromarray(depth[index]).save(folder / f"depth{index}.png")
        if posed:
            frame["K"] = batch.intrinsics[0, index].double().tolist()
            frame["c2w"] = [*poses[index].tolist(), [0, 0, 0, 1]]
        frames.append(frame)
    unit = {"depth_unit_m": UNIT} if measured else {}
    (folder / "cameras.json").write_text(json.dumps({"frames": frames, **unit}))
    return folder
