"""``vggt-edge compress``: a float network to packed integers in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .report import DeviceOption, JsonOption, finish, on_terminal, size_text

WORLDS = 12  # procedural scenes to choose a recipe on, where there are no pictures


def command(
    model: Annotated[
        str,
        typer.Argument(
            help="pocket (embedded), a weight file, or a hub name such as facebook/VGGT-1B.",
            metavar="MODEL",
        ),
    ] = "pocket",
    recipe: Annotated[
        str | None,
        typer.Option(
            help="A precision, such as w8a8 (the default), w4a8-g32, w4a16-g128, w4a4-hadamard or "
            "fp8; or rules, first match wins, such as 'camera_head.*=float,*=w4a8-g32'.",
            metavar="RECIPE",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Choose a mixed recipe that costs least in a file of at most so much, such as "
            "600MB.",
            metavar="SIZE",
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Choose the smallest mixed recipe that loses at most so many percent points of "
            "pose (AUC@30), depth (AbsRel) or points against the float model.",
            metavar="POINTS",
        ),
    ] = None,
    candidates: Annotated[
        str,
        typer.Option(
            help="Comma-separated precisions that --budget and --max-drop choose from, block by "
            "block.",
            metavar="NAMES",
        ),
    ] = "w4a8-g32,w8a8,float",
    method: Annotated[
        str,
        typer.Option(
            help="minmax and nearest need no pictures; smooth, awq, clip, gptq, bias, qvggt, "
            "quantvggt and auto do. auto is nearest without pictures.",
            metavar="METHOD",
        ),
    ] = "auto",
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="Set from vggt-edge calibrate, or a folder of pictures like those the network "
            "will see.",
            metavar="FOLDER",
        ),
    ] = None,
    scenes: Annotated[
        int, typer.Option(help="Scenes to make of plain pictures, at most.", metavar="N", min=1)
    ] = 16,
    views: Annotated[
        int, typer.Option(help="Views of each of these scenes.", metavar="N", min=1)
    ] = 8,
    size: Annotated[
        int | None,
        typer.Option(
            help="Longer side of the views of plain pictures; by default as in reconstruct.",
            metavar="PIXELS",
        ),
    ] = None,
    heads: Annotated[
        str | None,
        typer.Option(help="Comma-separated heads to keep; all by default.", metavar="NAMES"),
    ] = None,
    floats: Annotated[
        str,
        typer.Option(
            help="How the numbers that stay float are stored: fp16, bf16 or float32.",
            metavar="DTYPE",
        ),
    ] = "fp16",
    rows: Annotated[
        int, typer.Option(help="Tokens of the calibration kept of each layer.", metavar="N", min=64)
    ] = 4096,
    compensation_token: Annotated[
        bool,
        typer.Option(
            "--compensation-token",
            help="Make QVGGT's compensation token of the calibration and keep it in the file.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of all that is drawn.", metavar="N", min=0)] = 0,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.", metavar="FILE")] = Path(
        "compressed.safetensors"
    ),
    device: DeviceOption = "cpu",
    json: JsonOption = False,
) -> None:
    """Compress a network into packed integers.

    Blocks that are done are kept in FILE.partial until the file is written: the same command goes
    on where it was interrupted. With --budget or --max-drop every block is scored first, on the
    calibration scenes or else on procedural ones, into FILE.sensitivity.json.
    """
    from .. import api
    from ..compress.budget import check_limits, packed_of, parse_bytes
    from ..compress.calibration_set import read_set
    from ..compress.cases import view_cases, world_cases
    from ..compress.compress import compress
    from ..compress.fit import fit_recipe
    from ..compress.methods import method_of
    from ..compress.resume import remove
    from ..errors import InputError, OutputError
    from ..files import check_writable
    from ..hardware import DTYPES, keep_heap
    from ..model.vggt import VGGT
    from ..recipe import Recipe
    from ..weights import describe, load, save

    # What is wrong with the options is said before weights are loaded.
    if recipe is not None and (budget is not None or max_drop is not None):
        raise InputError("give either --recipe, or --budget or --max-drop, which choose one")
    wanted = Recipe(recipe or "w8a8")
    most = None if budget is None else parse_bytes(budget)
    names = [name.strip() for name in candidates.split(",")]
    if most is not None or max_drop is not None:
        check_limits(most, max_drop)
        packed_of(names)
    by = method_of(method)
    if compensation_token and calibration is None:
        raise InputError("--compensation-token is made of pictures: give them with --calibration")
    if floats not in DTYPES:
        raise InputError(f"--floats {floats!r}: use {', '.join(DTYPES)}")
    if out.suffix != ".safetensors":
        raise OutputError(f"{out}: weights are saved as .safetensors")
    check_writable(out.parent)
    header = describe(model)
    if header.recipe is not None:
        raise InputError(f"{model} is compressed with {header.recipe.name} already")
    config = header.config
    longer = size or api.default_size(config)
    pictures = None
    if calibration is not None:
        pictures = read_set(
            calibration, size=longer, patch=config.patch_size, limit=scenes, views=views
        )
    keep_heap()
    kept = None if heads is None else [name.strip() for name in heads.split(",")]
    network: VGGT = load(model, heads=kept, dtype="float32", device=device)
    before = header.path.stat().st_size
    fit = None
    if most is not None or max_drop is not None:
        cases = view_cases(pictures) if pictures else world_cases(WORLDS, 4, longer)
        fit = fit_recipe(
            network,
            cases,
            budget_bytes=most,
            max_drop=max_drop,
            candidates=names,
            floats=DTYPES[floats],
            file=out.with_name(f"{out.name}.sensitivity.json"),
            progress=on_terminal(),
        )
        wanted = fit.recipe
    work = out.with_name(f"{out.name}.partial") if pictures is not None and by.data else None
    report = compress(
        network,
        wanted,
        method=by,
        calibration=pictures,
        rows=rows,
        seed=seed,
        work=work,
        progress=on_terminal(),
        compensation=compensation_token,
    )
    path = save(network.to(DTYPES[floats]), out)
    if work is not None:
        remove(work)
    after = path.stat().st_size
    answers = ", ".join(f"{backend} {answer}" for backend, answer in report.runs_on.items())
    given = f", {report.scenes} scenes of {report.views} views in all" if report.scenes else ""
    lines = [
        f"{path} ({size_text(after)}; {model} has {size_text(before)})",
        f"  recipe      {report.recipe}, by {report.method}{given}",
        f"  layers      {len(report.layers)} linear layers and {report.convolutions} convolutions "
        f"quantized; {report.float_layers} linear layers stayed float",
        f"  runs on     {answers}",
        *(["  token       a compensation token for the camera head"] * compensation_token),
        *(f"  {line}" for line in report.table()),
        f"  took        {report.seconds:.0f} s",
        *(fit.lines() if fit else ()),
    ]
    data = {"file": str(path), "bytes": after, "bytes_of_model": before, **report.to_dict()}
    if fit:
        data["fit"] = fit.to_data()
    finish(lines, data, json)
