"""``vggt-edge sensitivity``: which layers and blocks compression hurts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .report import DeviceOption, DtypeOption, JsonOption, finish, on_terminal


def command(
    model: Annotated[
        str,
        typer.Argument(
            help="pocket (embedded), a weight file, or a hub name; not compressed.",
            metavar="MODEL",
        ),
    ] = "pocket",
    images: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of pictures, or of one folder a scene. Each is a set of its own; can be "
            "given more than once.",
            metavar="FOLDER",
        ),
    ] = None,
    worlds: Annotated[
        int | None,
        typer.Option(
            help="Procedural scenes, with known truth; 12 where no pictures are given.",
            metavar="N",
            min=1,
        ),
    ] = None,
    scheme: Annotated[
        list[str] | None,
        typer.Option(
            help="Precision, such as w4a8-g32 (the default) or w8a8. Can be given more than once.",
            metavar="SCHEME",
        ),
    ] = None,
    units: Annotated[str, typer.Option(help="blocks, layers or both.", metavar="UNITS")] = "both",
    against: Annotated[
        str,
        typer.Option(
            help="teacher: deviation from the float model; truth: loss of accuracy (worlds only).",
            metavar="TARGET",
        ),
    ] = "teacher",
    scenes: Annotated[
        int, typer.Option(help="At most N scenes of each folder.", metavar="N", min=1)
    ] = 12,
    views: Annotated[int, typer.Option(help="Views of each scene.", metavar="N", min=2)] = 4,
    size: Annotated[
        int | None,
        typer.Option(
            help="Longer side of the views; by default 518, or 224 for pocket.", metavar="PIXELS"
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for scores and plots.", metavar="FOLDER")
    ] = Path("sensitivity"),
    plots: Annotated[bool, typer.Option(help="Draw PNGs (needs matplotlib).")] = True,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    json: JsonOption = False,
) -> None:
    """Score each layer and block by what compressing it alone costs.

    Drops are in percent points of pose (AUC@30), depth (AbsRel) and points, means over scenes with
    95% bootstrap intervals. The same command goes on where it was interrupted.
    """
    from .. import api
    from ..compress import sensitivity_plot
    from ..compress.cases import folder_cases, world_cases
    from ..compress.scan import scan
    from ..compress.sensitivity import lines as table
    from ..errors import InputError
    from ..files import check_writable
    from ..hardware import keep_heap
    from ..preprocess import place
    from ..recipe import Scheme
    from ..weights import describe, load

    kinds = {"blocks": ("block",), "layers": ("layer",), "both": ("block", "layer")}.get(units)
    if kinds is None:
        raise InputError(f"unknown units {units!r}: use blocks, layers or both")
    folders, names = images or [], list(dict.fromkeys(scheme or ["w4a8-g32"]))
    for name in names:
        Scheme.parse(name)
    if against == "truth" and folders:
        raise InputError("the truth of pictures is unknown: use --against teacher, or --worlds")
    if plots:
        sensitivity_plot.check()
    check_writable(out)
    described = describe(model)
    patch = described.config.patch_size
    longer = size or api.default_size(described.config)
    place([(3, 4)], "keep", longer, patch)
    keep_heap()
    cases = [
        case for folder in folders for case in folder_cases(folder, scenes, views, longer, patch)
    ]
    if worlds or not folders:
        cases += world_cases(worlds or 12, views, longer)
    heads = tuple(head for head in described.config.heads if head != "track")
    network = load(model, heads=heads, dtype=dtype, device=device)
    file = out / "sensitivity.json"
    result = scan(
        network, cases, names, kinds=kinds, against=against, file=file, progress=on_terminal()
    )
    written = {"scores": str(file)}
    if plots:
        for name in names:
            path = sensitivity_plot.plot(result, name, out / f"sensitivity_{name}.png")
            written[f"plot {name}"] = str(path)
    lines = [line for name in names for kind in kinds for line in table(result, kind, name)]
    lines += [f"  {path}" for path in written.values()]
    finish(lines, {**result.to_data(), "outputs": written}, json)
