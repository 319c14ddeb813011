"""``vggt-edge export``: a network to the files a phone runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from .report import JsonOption, finish, on_terminal, size_text

RECIPE_HELP = (
    "Precision: float32, fp16, int8, int4, int8-weights, int4-weights, int8-hadamard, "
    "int4-hadamard, w8a8-static or w8a16-static; executorch has float32, int8, int4 and "
    "int8-static, its coreml and vulkan fp16 and float32; or one of compress, such as w4a8-g64. "
    "By default the target's first."
)


def command(
    model: Annotated[
        str,
        typer.Argument(
            help="pocket (embedded), a weight file, or a hub name such as facebook/VGGT-1B.",
            metavar="MODEL",
        ),
    ] = "pocket",
    target: Annotated[
        str,
        typer.Option(
            help="litert (CPU), litert-gpu, litert-npu or executorch (CPU); executorch-coreml and "
            "executorch-vulkan are lowered here, not run.",
            metavar="TARGET",
        ),
    ] = "litert",
    views: Annotated[
        int, typer.Option(help="Pictures in one input; fixed.", metavar="N", min=1)
    ] = 2,
    size: Annotated[
        str,
        typer.Option(help="HEIGHTxWIDTH of a picture, multiples of the patch.", metavar="SIZE"),
    ] = "224x224",
    outputs: Annotated[
        str, typer.Option(help="Comma-separated, of depth, confidence, pose.", metavar="NAMES")
    ] = "depth",
    recipe: Annotated[str | None, typer.Option(help=RECIPE_HELP, metavar="RECIPE")] = None,
    exception: Annotated[
        list[str] | None,
        typer.Option(
            help="A layer that gets another recipe, such as depth_head=float32 or "
            "'aggregator.global_blocks.*=int8'. Can be given more than once.",
            metavar="LAYER=RECIPE",
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="Folder of pictures like those the network will see, for the static recipes.",
            metavar="FOLDER",
        ),
    ] = None,
    split: Annotated[
        bool,
        typer.Option(
            "--split",
            help="Write encoder, trunk and heads as files of their own; for executorch as methods "
            "of one program.",
        ),
    ] = False,
    external_weights: Annotated[
        bool,
        typer.Option("--external-weights", help="executorch: write the weights into a .ptd."),
    ] = False,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile",
            help="executorch: keep what each part of the run took, as etdump for its Inspector.",
        ),
    ] = False,
    compile_for: Annotated[
        list[str] | None,
        typer.Option(
            "--compile",
            help="litert-npu: also compile the files ahead of time for these chips, such as "
            "SM8750 or SM8650,SM8850, by LiteRT's plugin in the environment of `make npu`. The "
            "vendor's libraries are yours under its licence.",
            metavar="CHIPS",
        ),
    ] = None,
    environments: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the environment that compiles, made by `make npu`; by default "
            "$VGGT_EDGE_ENVS or .envs.",
            metavar="FOLDER",
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="Also make what an app is handed: a folder, or a file that ends in .zip, with the "
            "files, their description and pictures with known answers, for vggt-edge check.",
            metavar="PATH",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the results.", metavar="FOLDER")
    ] = Path("out"),
    json: JsonOption = False,
) -> None:
    """Turn a network into files for a phone.

    The network is rewritten for the target, proven equal, converted, quantized, run on this machine
    and compared again. Input: float32 in [0, 1], RGB, (views, height, width, 3), or for
    executorch (views, 3, height, width), first view first.
    """
    from ..errors import InputError
    from ..export import bundle_write, export, npu
    from ..export.backend import backend_of, check
    from ..export.gates import environments as places
    from ..export.pictures import CALIBRATION_SETS
    from ..export.shape import HEAD_OF, Shape, check_outputs
    from ..export.targets import find_target
    from ..hardware import keep_heap
    from ..images import check_inputs, read_views
    from ..weights import describe, load

    shape = Shape.parse(views, size)
    exceptions = {}
    for text in exception or []:
        layer, found, precision = text.partition("=")
        if not found:
            raise InputError(f"--exception {text!r}: write LAYER=RECIPE")
        exceptions[layer] = precision
    # What is wrong with the options is said before weights are loaded.
    config = describe(model).config
    shape.check(config)
    wanted = check_outputs([name.strip() for name in outputs.split(",")], config)
    goal = find_target(target)
    precision = check(
        goal, recipe, calibration is not None, exceptions, external_weights, profile
    ).name
    if bundle is not None:
        bundle_write.check_fits(goal)
        bundle_write.check_place(bundle, out)
    chips: tuple[str, ...] = ()
    if compile_for is not None:
        chips = npu.parse_chips(compile_for)
        npu.require(goal, places.folder(environments))
    backend_of(goal).require_packages()
    keep_heap()
    pictures = None
    if calibration is not None:
        check_inputs(calibration)
        patch = config.patch_size
        longer = -(-2 * max(shape.height, shape.width) // patch) * patch
        pictures = read_views(calibration, size=longer, patch=patch, limit=CALIBRATION_SETS * views)
    heads = tuple(dict.fromkeys(HEAD_OF[name] for name in wanted))

    def notify(step: str) -> None:
        typer.echo(f"{step} ...", err=True)

    result = export(
        load(model, heads=heads, dtype="float32", device="cpu"),
        target,
        views=views,
        size=(shape.height, shape.width),
        outputs=wanted,
        recipe=precision,
        out=out,
        name=Path(model).stem,
        exceptions=exceptions,
        calibration=pictures,
        split=split,
        external_weights=external_weights,
        profile=profile,
        bundle=bundle,
        notify=notify if on_terminal() else None,
    )
    compiled: tuple[npu.CompiledFile, ...] = ()
    if chips:
        notify("compile") if on_terminal() else None
        compiled = npu.compile_files(result.files, chips, places.folder(environments), out)
    lines = [
        *(
            f"{file.path} ({size_text(file.bytes)}, {sum(file.operators.values())} operators)"
            for file in result.files
        ),
        *(
            f"  {name:<12}{'x'.join(map(str, port.shape))} {port.dtype}, "
            f"{result.layout}, RGB in [0, 1]"
            for name, port in result.files[0].inputs.items()
        ),
        *(
            f"  {entry.name:<12}{'x'.join(map(str, entry.shape))}, off the network by at most "
            f"{100 * entry.relative_error:.3g} % of its largest value, correlation "
            f"{entry.correlation:.6f}"
            for entry in result.artefact
        ),
        *([] if result.ran else [f"  {result.status}: {goal.runs}"]),
        *(_delegation(file.operators) for file in result.files if file.path.suffix == ".pte"),
        *(f"  {warning}" for warning in result.warnings),
        *(
            f"{file.path} ({size_text(file.bytes)}, {file.chip}: {file.compiled} of "
            f"{file.operators} operators in {file.partitions} partitions)"
            for file in compiled
        ),
        *([f"  bundle      {bundle}"] if bundle else []),
        *([f"  profile     {result.profile}"] if result.profile else []),
        f"  took        {sum(result.seconds.values()):.0f} s",
    ]
    data = result.to_dict()
    finish(lines, data | {"compiled": [file.to_dict() for file in compiled]}, json)


def _delegation(operators: Mapping[str, int]) -> str:
    """What took over a program's graphs, and what was left outside."""
    inside = {name: count for name, count in operators.items() if "::" not in name}
    outside = {name: count for name, count in operators.items() if "::" in name}
    taken = ", ".join(f"{name} in {count} pieces" for name, count in inside.items()) or "nothing"
    left = ", ".join(f"{count} {name}" for name, count in outside.items()) or "nothing"
    return f"  delegated   {taken}; left outside: {left}"
