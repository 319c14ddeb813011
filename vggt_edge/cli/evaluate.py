"""``vggt-edge evaluate``: how good is a model, on data with known truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .report import DeviceOption, DtypeOption, JsonOption, finish, on_terminal


def command(
    models: Annotated[
        list[str],
        typer.Argument(
            help="pocket (embedded), a weight file, a hub name, or a bundle of export; of two, the "
            "differences are shown as well.",
            metavar="MODEL",
        ),
    ],
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset",
            "-d",
            help="7scenes, nrgbd, co3d, scannet, tum, kitti, eth3d, dtu, re10k, colmap (a "
            "folder), transforms (nerfstudio, NeRF), cameras (cameras.json) or worlds.",
            metavar="NAME",
        ),
    ],
    root: Annotated[
        Path | None,
        typer.Option(help="Folder of the dataset; without it, what to fetch is said."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split of the dataset; by default its first.", metavar="NAME")
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            help="Whose tables the numbers may stand beside: vggt-edge (nobody's, any dataset), "
            "vggt, quantvggt, pi3, fastvggt, gotohunt or vggt-long.",
            metavar="NAME",
        ),
    ] = "vggt-edge",
    size: Annotated[
        int | None,
        typer.Option(
            help="Longer side of the views; by default 518, or 224 for pocket.", metavar="PIXELS"
        ),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="How pictures become views: keep (their aspect ratio), or crop or pad as the "
            "original VGGT does; by default as the protocol's script does.",
            metavar="MODE",
        ),
    ] = None,
    views: Annotated[
        int | None,
        typer.Option(help="Views per recording, instead of the protocol's.", metavar="N", min=1),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(help="Take every N-th frame, from the first on.", metavar="N", min=1),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            help="At most N recordings, spread evenly over the split.", metavar="N", min=1
        ),
    ] = None,
    draws: Annotated[
        str,
        typer.Option(
            help="How protocols with random frames draw them: sequence (each recording by itself) "
            "or published (one chain through the split, as the papers' scripts do).",
            metavar="NAME",
        ),
    ] = "sequence",
    colmap: Annotated[bool, typer.Option(help="Run COLMAP on the same pictures.")] = True,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Folder for predictions, scores and report.", metavar="FOLDER"
        ),
    ] = Path("evaluation"),
    report: Annotated[
        bool, typer.Option("--report", help="Write a page with plots and the worst cases.")
    ] = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    json: JsonOption = False,
) -> None:
    """Score one or two models on data with known truth.

    Predictions go to disk and are scored from there; the same command resumes a run. Beside the
    models stand constant depth with identity pose and, where poses are scored, COLMAP. Values are
    means over recordings with 95% intervals, bootstrapped over recordings.
    """
    from .. import api
    from ..errors import InputError
    from ..evaluate import evaluation, table
    from ..export.bundle import is_bundle
    from ..export.runner import BundleModel
    from ..files import check_writable
    from ..hardware import keep_heap, pick_device, pick_dtype
    from ..preprocess import place
    from ..weights import describe, load

    if len(models) > 2:
        raise InputError(f"{len(models)} models: give one, or two to compare")
    target = pick_device(device)
    precision = pick_dtype(dtype, target)
    keep_heap()
    check_writable(out)
    # What is wrong with the options and the data is said before any weights are loaded.
    bundles = {model: BundleModel(model) for model in models if is_bundle(model)}
    described = {model: describe(model) for model in models if model not in bundles}
    for one in described.values():
        place([(3, 4)], mode or "keep", size or api.default_size(one.config), one.config.patch_size)
    task = evaluation.prepare(
        dataset,
        root,
        split=split,
        protocol=protocol,
        views=views,
        stride=stride,
        limit=limit,
        draws=draws,
    )
    mode = mode or task.protocol.mode
    methods = [
        api.method(
            bundles.get(model) or load(described[model].path, device=target, dtype=precision),
            name,
            size=size,
            mode=mode,
        )
        for model, name in zip(models, _names(models), strict=True)
    ]
    result = api.finish_evaluation(
        task, methods, out, colmap=colmap, report=report, progress=on_terminal()
    )
    written = {"scores": str(out / f"{dataset}.json")}
    if report:
        written["report"] = str(out / f"{dataset}.html")
    lines = [*table.lines(result), "", *(f"  {path}" for path in written.values())]
    finish(lines, {**result.to_dict(), "outputs": written}, json)


def _names(models: list[str]) -> list[str]:
    """Short names for columns and folders, and whole ones where short ones would be the same."""
    short = [Path(model).stem for model in models]
    if len(set(short)) == len(short):
        return short
    whole = [model.strip("/.").replace("/", "_").replace("\\", "_") for model in models]
    return [f"{name}_{i}" if whole.count(name) > 1 else name for i, name in enumerate(whole, 1)]
