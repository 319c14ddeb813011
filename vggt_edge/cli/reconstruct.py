"""``vggt-edge reconstruct``: photographs or video to a 3D scene."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from .report import DeviceOption, DtypeOption, JsonOption, finish, on_terminal

FORMATS_HELP = (
    "Comma-separated: glb, ply, html, colmap, transforms, npz, depth (16-bit PNG), exr, rerun."
)


def command(
    inputs: Annotated[
        list[str],
        typer.Argument(help="Folders, pictures, globs, videos or URLs.", metavar="INPUT..."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("out"),
    model: Annotated[
        str, typer.Option("--model", "-m", help="pocket, a weight file, or a hub name.")
    ] = "pocket",
    formats: Annotated[str, typer.Option("--formats", "-f", help=FORMATS_HELP)] = "glb,html,colmap",
    size: Annotated[
        int | None,
        typer.Option(help="Longer side of the views; by default 518, or 336 for the pocket model."),
    ] = None,
    mode: Annotated[
        str, typer.Option(help="keep (aspect ratio kept), or crop or pad as upstream does.")
    ] = "keep",
    fps: Annotated[float | None, typer.Option(help="Frames a second to take from a video.")] = None,
    every: Annotated[int | None, typer.Option(help="Take every n-th frame of a video.")] = None,
    limit: Annotated[int | None, typer.Option(help="Use at most so many views.")] = None,
    confidence: Annotated[
        float, typer.Option(help="Drop this percentage of pixels, the least certain.")
    ] = 20.0,
    max_points: Annotated[int, typer.Option(help="Keep at most so many points.")] = 1_000_000,
    mask_sky: Annotated[bool, typer.Option(help="Drop what looks like sky.")] = False,
    mask_edges: Annotated[bool, typer.Option(help="Drop flying pixels at depth edges.")] = True,
    consistent: Annotated[
        int, typer.Option(help="Keep points that so many other views agree on.")
    ] = 0,
    point_head: Annotated[
        bool, typer.Option(help="Take points from the point head, not from depth and cameras.")
    ] = False,
    full_resolution: Annotated[
        bool, typer.Option(help="Depth maps at the size of the source pictures.")
    ] = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    json: JsonOption = False,
) -> None:
    """Reconstruct a scene: cameras, depth and points, in the files people use."""
    # The libraries behind these take a second to load; --help should not.
    from .. import api, outputs
    from ..images import read_views
    from ..scene.reconstruct import reconstruct
    from ..weights import load

    begin = time.monotonic()
    wanted = outputs.check_formats([name.strip() for name in formats.split(",") if name.strip()])
    heads = ("camera", "depth", "point") if point_head else ("camera", "depth")
    progress = on_terminal()
    network = load(model, heads=heads, device=device, dtype=dtype)
    views = read_views(
        inputs,
        size=size or min(518, network.config.image_size * 3 // 2),
        mode=mode,
        patch=network.config.patch_size,
        fps=fps,
        every=every,
        limit=limit,
        progress=progress,
    )
    scene = reconstruct(
        network,
        views,
        percentile=confidence,
        mask_sky=mask_sky,
        mask_edges=mask_edges,
        max_points=max_points,
        min_consistent_views=consistent,
        source="points" if point_head else "depth",
        progress=progress,
    )
    written = api.write(scene, out, wanted, full_resolution=full_resolution)
    seconds = time.monotonic() - begin
    height, width = views.size
    lines = [
        f"{len(views)} views of {width}x{height}, {len(scene.points):,} points, {seconds:.1f} s",
        *(f"  {name:<11}{path}" for name, path in written.items()),
    ]
    data = {
        "views": len(views),
        "size": [height, width],
        "points": len(scene.points),
        "seconds": round(seconds, 3),
        "outputs": {name: str(path) for name, path in written.items()},
    }
    finish(lines, data, json)
