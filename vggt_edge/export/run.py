"""One call from a network to what a phone runs: rewrite, validate, lint, convert, quantize, run."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..errors import ExportError, InputError
from ..files import check_writable, file_digest, replacing
from ..model.vggt import VGGT
from ..types import Views
from . import executorch_program, lint, litert, stages
from .backend import backend_of, check, check_layers
from .executorch_recipes import ExecuTorchRecipe
from .litert_recipes import LiteRTRecipe
from .module import Agreement, TensorModule, as_tuple, compare, example_images, validate
from .reauthor import reauthor
from .shape import Shape, check_outputs
from .stages import Stage
from .targets import Target, find_target

# What a file may deviate from the network, relative to the largest value. Integers are judged by
# tasks, not here.
ARTEFACT_TOLERANCE = {"float32": 1e-4, "float": 1e-4, "fp16": 1e-2}
CALIBRATION_SETS = 16


@dataclass(frozen=True)
class ExportedFile:
    """One file of an export, in the order they run.

    ``inputs`` and ``outputs`` are names to ``litert.Port``: shape, type and scale.
    """

    path: Path
    stage: str
    bytes: int
    sha256: str
    inputs: Mapping[str, litert.Port]
    outputs: Mapping[str, litert.Port]
    operators: Mapping[str, int]


@dataclass(frozen=True)
class Exported:
    """What an export made and how near it is to the network.

    Fields
        files      the artefact, one file or several stages.
        target, recipe, shape, outputs  what was asked for.
        layout     of the images: "VHWC" or "VCHW"; float32 in [0, 1], RGB, first view first.
        rewrite    the rewritten network beside the network, float32.
        artefact   the files, run on this machine, beside the network; empty where they were not.
        warnings   of the lint.
        seconds    name of a step to its duration.
        versions   of the packages.
        exceptions layer path to the recipe that layer got instead.
        ran        whether the files were run on this machine, which some targets' cannot be.
    """

    files: tuple[ExportedFile, ...]
    target: str
    recipe: str
    shape: Shape
    outputs: tuple[str, ...]
    layout: str
    rewrite: tuple[Agreement, ...]
    artefact: tuple[Agreement, ...]
    warnings: tuple[str, ...]
    seconds: Mapping[str, float]
    versions: Mapping[str, str]
    exceptions: Mapping[str, str] = field(default_factory=dict)
    ran: bool = True

    @property
    def status(self) -> str:
        """How far the files are proven here: "run and compared" or "lowered, not run"."""
        return "run and compared" if self.ran else "lowered, not run"

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.bytes for file in self.files)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        data = asdict(self)
        for file in data["files"]:
            file["path"] = str(file["path"])
        about = {"bytes": self.bytes, "status": self.status}
        return data | about | {"range": [0.0, 1.0], "channels": "RGB"}


def fit(views: Views, shape: Shape) -> np.ndarray:
    """(N, V, H, W, 3) float32 in [0, 1]: runs of consecutive views, cut to the shape's aspect.

    Spread over all views, at most 16 runs.

    Raises:
        InputError: fewer views than the shape has.
    """
    if len(views) < shape.views:
        raise InputError(
            f"{len(views)} pictures to measure on, and one input is {shape.views}: give more"
        )
    count = min(CALIBRATION_SETS, len(views) - shape.views + 1)
    starts = np.linspace(0, len(views) - shape.views, count).round().astype(int)
    size = (shape.width, shape.height)
    resized = {
        i: np.asarray(
            ImageOps.fit(Image.fromarray(views.images[i]), size, Image.Resampling.BICUBIC)
        )
        for start in starts
        for i in range(start, start + shape.views)
    }
    sets = [[resized[start + i] for i in range(shape.views)] for start in starts]
    return np.asarray(sets, dtype=np.float32) / 255


def _example_inputs(plan: Sequence[Stage], images: Tensor) -> dict[str, Tensor]:
    with torch.inference_mode():
        return stages.run(plan, stages.call_torch, images)


def run_files(
    files: Sequence[tuple[Stage, Path]], images: np.ndarray, threads: int = 2
) -> dict[str, np.ndarray]:
    """Run ``.tflite`` files one after the other on images in their layout; every named tensor."""
    paths = {stage.name: path for stage, path in files}

    def call(stage: Stage, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return litert.LiteRTRunner(paths[stage.name], threads)(**inputs)

    return stages.run([stage for stage, _ in files], call, images)


def _check_artefact(
    recipes: Sequence[str],
    outputs: Sequence[str],
    found: Mapping[str, np.ndarray],
    wanted: Sequence[np.ndarray],
) -> tuple[Agreement, ...]:
    report = tuple(compare(n, found[n], w) for n, w in zip(outputs, wanted, strict=True))
    limit = max(ARTEFACT_TOLERANCE.get(recipe, 1e30) for recipe in recipes)
    if bad := [entry for entry in report if not entry.relative_error <= limit]:
        raise ExportError(f"the converted file differs from the network: {bad[0]}")
    return report


class _Clock:
    """Says what begins, and keeps how long each step took."""

    def __init__(self, notify: Callable[[str], None] | None):
        self.notify, self.seconds = notify, dict[str, float]()
        self._step, self._begin = "", 0.0

    def start(self, step: str) -> None:
        """A step begins, the one before it has ended."""
        now = time.perf_counter()
        if self._step:
            spent = self.seconds.get(self._step, 0.0) + now - self._begin
            self.seconds[self._step] = round(spent, 3)
        self._step, self._begin = step, now
        if step and self.notify:
            self.notify(step)


def export(
    model: VGGT,
    target: str = "litert",
    *,
    views: int = 2,
    size: tuple[int, int] = (224, 224),
    outputs: Sequence[str] = ("depth",),
    recipe: str | None = None,
    out: str | Path = "out",
    name: str = "vggt",
    exceptions: Mapping[str, str] | None = None,
    calibration: Views | None = None,
    split: bool = False,
    external_weights: bool = False,
    notify: Callable[[str], None] | None = None,
) -> Exported:
    """Turn a network into files a phone runs, each proven on this machine against the network.

    Args:
        model: from ``load``, on the CPU. A caller that keeps no reference saves its memory.
        target: a name from ``targets.TARGETS``.
        views: how many pictures one input has, fixed.
        size: (height, width) of each, multiples of the patch size.
        outputs: of "depth", "confidence", "pose".
        recipe: a precision the target can run, by default its first; or a recipe of
            ``vggt_edge.recipe``, where the target translates them.
        out: folder for the files.
        name: what the files' names begin with.
        exceptions: layer path (``*`` for any part) to the recipe that layer gets instead.
        calibration: pictures like those the network will see, for recipes that measure ranges.
        split: write encoder, trunk and heads as files of their own, or as methods of one ExecuTorch
            program; done in any case where the target's graphs cannot hold the whole.
        external_weights: ExecuTorch's weights in a ``.ptd`` beside the ``.pte``.
        notify: receives the name of each step as it begins.

    Raises:
        InputError: a shape, output, target, recipe or exception that cannot be.
        ExportError: a rewrite that differs, an operator the target lacks, a converter that fails.
        MissingExtraError: without the target's packages.
        OutputError: a folder that cannot be written.
    """
    goal = find_target(target)
    shape = Shape(views, *size)
    shape.check(model.config)
    wanted_names = check_outputs(outputs, model.config)
    chosen = check(goal, recipe, calibration is not None, exceptions, external_weights)
    recipes = (chosen.name, *(exceptions or {}).values())
    backend = backend_of(goal)
    backend.require_packages()
    out = Path(out)
    check_writable(out)
    needed = calibration if chosen.needs_pictures else None
    measured = None if needed is None else fit(needed, shape)
    clock = _Clock(notify)

    clock.start("rewrite")
    rewritten = reauthor(model, shape, wanted_names, goal.form)
    check_layers(goal, model, rewritten, exceptions or ())
    clock.start("validate")
    images = example_images(shape)
    reference = TensorModule(model, wanted_names)
    rewrite = validate(
        rewritten,
        reference,
        shape,
        channels_last=goal.form.channels_last,
        images=images,
        folder=out,
    )
    with torch.inference_mode():
        wanted = [value.numpy() for value in as_tuple(reference(images))]
    del model, reference  # half the memory of a large network, if nobody else holds it
    plan = _plan(rewritten, goal, chosen, split)
    given = images.permute(0, 2, 3, 1).contiguous() if goal.form.channels_last else images
    values = _example_inputs(plan, given)

    clock.start("lint")
    warnings = []
    for stage in plan:
        program = torch.export.export(stage.module, tuple(values[n] for n in stage.inputs))
        warnings += [str(finding) for finding in lint.require(program, goal, chosen.weight_bits)]
        del program

    out.mkdir(parents=True, exist_ok=True)
    label = re.sub(r"[^\w.-]+", "_", chosen.name)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out) as scratch:
        folder, base = Path(scratch), f"{name}-{shape}-{label}"
        if isinstance(chosen, ExecuTorchRecipe):
            if measured is not None and not goal.form.channels_last:
                measured = np.ascontiguousarray(measured.transpose(0, 1, 4, 2, 3))
            sets = () if measured is None else measured
            samples = [_example_inputs(plan, torch.from_numpy(images)) for images in sets]
            weights = folder / f"{base}.ptd" if external_weights else None
            delegate = goal.delegate or "XnnpackBackend"
            runnable = executorch_program.build(
                plan,
                chosen,
                values,
                samples,
                folder / f"{base}.pte",
                weights,
                clock.start,
                delegate,
            )
            found = None
            if goal.runs_here:
                clock.start("run")
                found = runnable.run(given)
            label = "+".join(stage.name for stage in plan)
            built = [_Built(runnable.path, label, *runnable.ports(), runnable.operators())]
            built += [_Built(path, "weights", {}, {}, {}) for path in [weights] if path]
        else:
            made = _litert(plan, chosen, exceptions, values, measured, folder, base, clock)
            clock.start("run")
            found = run_files(made, given.numpy())
            built = []
            for stage, path in made:
                runner = litert.LiteRTRunner(path)
                ports = runner.inputs, runner.outputs
                built.append(_Built(path, stage.name, *ports, runner.operators()))
        artefact = found and _check_artefact(recipes, wanted_names, found, wanted)
        files = []
        for item in built:
            final = out / item.path.name
            with replacing(final) as temporary:
                item.path.replace(temporary)
            files.append(
                ExportedFile(
                    final,
                    item.stage,
                    final.stat().st_size,
                    file_digest(final),
                    item.inputs,
                    item.outputs,
                    item.operators,
                )
            )
        clock.start("")
    return Exported(
        tuple(files),
        goal.name,
        chosen.name,
        shape,
        wanted_names,
        "VHWC" if goal.form.channels_last else "VCHW",
        tuple(rewrite),
        artefact or (),
        tuple(dict.fromkeys(warnings)),
        clock.seconds,
        backend.versions(),
        exceptions=dict(exceptions or {}),
        ran=goal.runs_here,
    )


class _Built(NamedTuple):
    """A file in the scratch folder, under its final name."""

    path: Path
    stage: str
    inputs: Mapping[str, litert.Port]
    outputs: Mapping[str, litert.Port]
    operators: Mapping[str, int]


def _litert(
    plan: Sequence[Stage],
    recipe: LiteRTRecipe,
    exceptions: Mapping[str, str] | None,
    values: Mapping[str, Tensor],
    measured: np.ndarray | None,
    folder: Path,
    base: str,
    clock: _Clock,
) -> list[tuple[Stage, Path]]:
    made = []
    for stage in plan:
        suffix = "" if len(plan) == 1 else f"-{stage.name}"
        inputs = {key: values[key] for key in stage.inputs}
        final = folder / f"{base}{suffix}.tflite"
        quantized = bool(recipe.rules or exceptions)
        clock.start("convert")
        path = folder / f"float{suffix}.tflite" if quantized else final
        litert.convert(stage.module, inputs, stage.outputs, path, stage.part)
        if quantized:
            clock.start("quantize")
            samples = _samples(plan, stage, measured)
            litert.quantize(path, final, recipe.name, exceptions=exceptions, inputs=samples)
        made.append((stage, final))
    return made


def _plan(
    rewritten: Any, goal: Target, recipe: LiteRTRecipe | ExecuTorchRecipe, split: bool
) -> list[Stage]:
    one = stages.whole(rewritten)
    size = stages.size_of(one[0]) * recipe.weight_bits // 32
    if split or (goal.graph_limit is not None and size > goal.graph_limit):
        return stages.split(rewritten, goal.graph_limit, recipe.weight_bits)
    return one


def _samples(
    plan: Sequence[Stage], stage: Stage, pictures: np.ndarray | None
) -> list[dict[str, np.ndarray]]:
    """Inputs of one stage for every set of pictures, made by the stages before it, in float32."""
    samples: list[dict[str, np.ndarray]] = []
    for images in () if pictures is None else pictures:
        before = plan[: plan.index(stage)]
        values = _example_inputs(before, torch.from_numpy(images))
        samples.append({name: values[name].numpy() for name in stage.inputs})
    return samples
