"""Options of ``vggt-edge reconstruct`` that take a few lines to explain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

FormatsOption = Annotated[
    str | None,
    typer.Option(
        "--formats",
        "-f",
        help="Comma-separated, of glb, ply, html (a 3D viewer), colmap, colmap-text, transforms "
        "(nerfstudio), npz, depth (16-bit PNG), exr, rerun. By default glb,html,colmap; with "
        "--stream none.",
        metavar="NAMES",
    ),
]
AttentionOption = Annotated[
    str | None,
    typer.Option(
        help="Which views see which: dense (all see all), anchors (all see K views that cover the "
        "set, so that cost no longer grows with the square of the views), covisible (each sees "
        "those most alike; measured elsewhere to be inaccurate), covisible+anchors, avggt, merge, "
        "or auto (dense up to 2 K views, then anchors).",
        metavar="MODE",
        show_default="auto",
    ),
]
WatchOption = Annotated[
    float | None,
    typer.Option(
        help="Stream a growing folder, or a running video frame by frame: a file, a URL (rtsp://, "
        "http://) or a camera (/dev/video0), until its end, Ctrl-C, or until nothing new has come "
        "for so many seconds. The anchors are chosen from its first 2 K pictures.",
        metavar="SECONDS",
        min=0,
    ),
]
KnownCamerasOption = Annotated[
    Path | None,
    typer.Option(
        help="Move the scene, at their scale, to cameras that are known of three or more of the "
        "pictures, by file name: a transforms.json, a COLMAP folder or a cameras.json.",
        metavar="FILE",
    ),
]
