"""``vggt-edge convert``: quantized models of other projects to weight files of this one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .report import JsonOption, finish, size_text


def command(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="QVGGT's model-v2.pt; or QuantVGGT's qs_frame_parameters_total.pth and "
            "qs_global_parameters_total.pth.",
            metavar="FILE",
        ),
    ],
    base: Annotated[
        str | None,
        typer.Option(
            help="Float model the file was made of, such as facebook/VGGT-1B, where it does not "
            "hold all weights.",
            metavar="MODEL",
        ),
    ] = None,
    scheme: Annotated[
        str,
        typer.Option(
            help="Bits of QuantVGGT's run, which its files do not state: w4a4, w4a8 or w8a8.",
            metavar="SCHEME",
        ),
    ] = "w4a4",
    floats: Annotated[
        str,
        typer.Option(help="Numbers that are float: float32, bf16 or fp16.", metavar="DTYPE"),
    ] = "bf16",
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.", metavar="FILE")] = Path(
        "converted.safetensors"
    ),
    json: JsonOption = False,
) -> None:
    """Open quantized models of QuantVGGT and QVGGT.

    QVGGT's file becomes a float model of exactly its weights, with its compensation token; compress
    it again to have it small. QuantVGGT's parameters become a compressed model.
    """
    from ..compress import foreign
    from ..compress.foreign_open import open_awq, open_quantvggt
    from ..errors import InputError, OutputError
    from ..files import check_writable
    from ..hardware import DTYPES, keep_heap
    from ..weights import load, save

    if floats not in DTYPES:
        raise InputError(f"--floats {floats!r}: use {', '.join(DTYPES)}")
    if out.suffix != ".safetensors":
        raise OutputError(f"{out}: weights are saved as .safetensors")
    check_writable(out.parent)
    artefacts = [foreign.identify(file) for file in files]
    for file, found in zip(files, artefacts, strict=True):
        if not file.exists():
            raise InputError(f"{file}: no such file")
        if found is None:
            raise InputError(f"{file} is neither QuantVGGT's nor QVGGT's; reconstruct takes others")
    kinds = {found.kind for found in artefacts if found}
    keep_heap()
    float_base = None
    if kinds == {foreign.QUANTVGGT} and len(files) == 2:
        if base is None:
            raise InputError("QuantVGGT's files hold no weights: give --base, the float model")
        frame, across = sorted(files, key=lambda file: "global" in file.name)
        model = open_quantvggt(frame, across, load(base, dtype="float32", device="cpu"), scheme)
    elif kinds == {foreign.AWQ} and len(files) == 1:
        if base is not None:
            float_base = load(base, dtype="float32", device="cpu")
        model = open_awq(files[0], float_base)
    else:
        raise InputError("give one file of QVGGT's, or the frame and the global one of QuantVGGT's")
    path = save(model.to(DTYPES[floats]), out)
    size = path.stat().st_size
    recipe = model.recipe.name if model.recipe else "none (float)"
    lines = [f"{path} ({size_text(size)})", f"  recipe      {recipe}"]
    data = {
        "file": str(path),
        "bytes": size,
        "recipe": model.recipe.name if model.recipe else None,
        "compensation_tokens": model.config.compensation_tokens,
    }
    finish(lines, data, json)
