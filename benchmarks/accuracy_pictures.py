"""Pictures of what a model makes of held-out worlds, beside the truth.

    python benchmarks/accuracy_pictures.py [MODEL] [--views 4] [--size 112]

Writes ``docs/images/accuracy.png``: one row for a scene, all from seeds no training draws, the last
two of kinds no training draws; not chosen by score. A row shows the first view, its true and its
predicted depth (both by the scale of the truth, near is light), the relative error (darkest from
one half on), and cameras from above after Sim(3), true ones in black.
"""

from __future__ import annotations

import argparse

import numpy as np
import record
import torch

import vggt_edge as ve
from vggt_edge.evaluate.datasets.worlds import OVERLAP, TEST_SEED
from vggt_edge.evaluate.trajectories import align, trajectory_score
from vggt_edge.evaluate.worst import depth_cases
from vggt_edge.geometry import invert_rigid
from vggt_edge.worlds import render

SCENES = (("room", 1), ("table", 1), ("object", 1), ("street", 1), ("terrace", 1), ("depot", 1))


def main() -> None:
    from matplotlib.figure import Figure

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="pocket")
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--size", type=int, default=112)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = ve.load(args.model, dtype="float32", device="cpu")
    figure = Figure(figsize=(10, 2.05 * len(SCENES)), layout="constrained")
    grid = figure.subplots(len(SCENES), 5)
    for axes, (kind, number) in zip(grid, SCENES, strict=True):
        seed = TEST_SEED + 500_000 + number
        world = render(seed, 1, args.views, args.size, args.size, kinds=(kind,), overlap=OVERLAP)
        pixels = (world.images[0].permute(0, 2, 3, 1) * 255).round().byte().numpy()
        found = ve.predict(model, ve.Views.from_images(pixels))
        case = min(
            depth_cases(kind, 0.0, found, world.depth[0].numpy(), args.views), key=lambda c: c.view
        )
        for axis, picture in zip(
            axes[:4], (case.image, case.true, case.predicted, case.error), strict=True
        ):
            axis.imshow(picture)
            axis.axis("off")
        true = world.camera_from_world[0].double().numpy()
        poses = (true, found.cameras.camera_from_world)
        centers, answer = (invert_rigid(pose)[:, :, 3] for pose in poses)
        fit = align(answer, centers)
        _from_above(axes[4], centers, fit.apply(answer))
        score = trajectory_score(found.cameras.camera_from_world, true)
        axes[0].set_title(f"{kind}, AbsRel {case.abs_rel:.2f}", fontsize=9)
        axes[4].set_title(f"ATE {100 * score.ate_relative:.0f} % of the spread", fontsize=9)
    for axis, title in zip(grid[0][1:4], ("true depth", "predicted", "error"), strict=True):
        axis.set_title(title, fontsize=9)
    path = record.RESULTS.parent / "docs" / "images" / "accuracy.png"
    figure.savefig(path, dpi=80)
    print(path)


def _from_above(axis, true: np.ndarray, predicted: np.ndarray) -> None:
    """Centres along the two directions in which the true ones spread most."""
    middle = true.mean(axis=0)
    along = np.linalg.svd(true - middle)[2][:2]
    for centers, style in ((true, "k.-"), (predicted, "C1.-")):
        axis.plot(*((centers - middle) @ along.T).T, style, markersize=5)
    axis.set_aspect("equal", adjustable="datalim")
    axis.tick_params(labelbottom=False, labelleft=False)


if __name__ == "__main__":
    main()
