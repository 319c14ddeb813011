"""One call from a network to what a phone runs: rewrite, validate, lint, convert, quantize, run."""

from __future__ import annotations

import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import ExportError
from ..files import check_writable, file_digest, replacing
from ..model.identity import identity_of
from ..model.vggt import VGGT
from ..types import Views
from . import bundle_write, executorch_program, golden, lint, litert, stages
from .backend import backend_of, check, check_layers
from .executorch_recipes import ExecuTorchRecipe
from .exported import Exported, ExportedFile, ExportedMethod
from .litert_recipes import LiteRTRecipe
from .module import Agreement, TensorModule, as_tuple, compare, example_images, validate
from .pictures import fit
from .reauthor import reauthor
from .shape import Shape, check_outputs
from .stages import Stage
from .targets import Target, find_target

# What a file may deviate from the network, relative to the largest value. Integers are judged by
# tasks, not here.
ARTEFACT_TOLERANCE = {"float32": 1e-4, "float": 1e-4, "fp16": 1e-2}


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
    profile: bool = False,
    bundle: str | Path | None = None,
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
        profile: keep what ExecuTorch's run on this machine took, in an ``.etdp`` beside the
            ``.pte``, for its Inspector.
        bundle: also make what an app is handed, for ``BundleModel`` and ``vggt-edge check``: a
            folder, or a zip where it ends in ``.zip``; see ``bundle_write.write``.
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
    chosen = check(goal, recipe, calibration is not None, exceptions, external_weights, profile)
    recipes = (chosen.name, *(exceptions or {}).values())
    backend = backend_of(goal)
    backend.require_packages()
    out = Path(out)
    check_writable(out)
    if bundle is not None:
        bundle_write.check_fits(goal)
        bundle_write.check_place(Path(bundle), out)
    needed = calibration if chosen.needs_pictures else None
    measured = None if needed is None else fit(needed, shape)
    clock = _Clock(notify)

    known = None
    if bundle is not None:
        clock.start("golden")
        known = golden.make(model, shape, wanted_names), identity_of(model)
    licence, patch = model.license, model.config.patch_size
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
        measure = folder / f"{base}.etdp" if profile else None
        if isinstance(chosen, ExecuTorchRecipe):
            built, found = _executorch(
                plan, goal, chosen, values, measured, folder, base, external_weights, measure, clock
            )
        else:
            built, found = _litert(plan, chosen, exceptions, values, measured, folder, base, clock)
        artefact = found and _check_artefact(recipes, wanted_names, found, wanted)
        files = []
        for item in built:
            final = _hand_over(item.path, out)
            files.append(
                ExportedFile(
                    final,
                    item.stage,
                    final.stat().st_size,
                    file_digest(final),
                    item.inputs,
                    item.outputs,
                    item.operators,
                    item.methods,
                )
            )
        kept = measure and _hand_over(measure, out)
        clock.start("")
    result = Exported(
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
        profile=kept,
    )
    if bundle is not None and known is not None:
        del rewritten, plan, values, wanted  # as large as the files, which are loaded again
        clock.start("bundle")
        bundle_write.write(
            result,
            known[0],
            bundle,
            name=f"{name}-{shape}-{goal.name}-{chosen.name}",
            network=known[1],
            patch=patch,
            **({"weights_licence": licence} if licence else {}),
        )
        clock.start("")
    return result


def _hand_over(path: Path, out: Path) -> Path:
    final = out / path.name
    with replacing(final) as temporary:
        path.replace(temporary)
    return final


class _Built(NamedTuple):
    """A file in the scratch folder, under its final name."""

    path: Path
    stage: str
    inputs: Mapping[str, litert.Port]
    outputs: Mapping[str, litert.Port]
    operators: Mapping[str, int]
    methods: Mapping[str, ExportedMethod]


def _program(path: Path, methods: Mapping[str, ExportedMethod]) -> _Built:
    """An ExecuTorch program: what its first method takes, and what each of them gives."""
    parts = list(methods.values())
    label = "+".join(part.stage for part in parts)
    outputs = {name: port for part in parts for name, port in part.outputs.items()}
    counts: Counter[str] = sum((Counter(part.operators) for part in parts), Counter())
    return _Built(path, label, parts[0].inputs, outputs, dict(counts), methods)


def _executorch(
    plan: Sequence[Stage],
    goal: Target,
    recipe: ExecuTorchRecipe,
    values: Mapping[str, Tensor],
    measured: np.ndarray | None,
    folder: Path,
    base: str,
    external_weights: bool,
    profile: Path | None,
    clock: _Clock,
) -> tuple[list[_Built], dict[str, np.ndarray] | None]:
    """One program, its weights, and what it says of the example; None where it does not run."""
    sets = [] if measured is None else list(measured)
    if not goal.form.channels_last:
        sets = [np.ascontiguousarray(images.transpose(0, 3, 1, 2)) for images in sets]
    samples = [_example_inputs(plan, torch.from_numpy(images)) for images in sets]
    weights = folder / f"{base}.ptd" if external_weights else None
    runnable = executorch_program.build(
        plan,
        recipe,
        values,
        samples,
        folder / f"{base}.pte",
        weights,
        clock.start,
        goal.delegate or "XnnpackBackend",
    )
    found = None
    if goal.runs_here:
        clock.start("run")
        found = runnable.run(values["images"], profile=profile)
    built = [_program(runnable.path, runnable.methods())]
    built += [_Built(path, "weights", {}, {}, {}, {}) for path in [weights] if path]
    return built, found


def _litert(
    plan: Sequence[Stage],
    recipe: LiteRTRecipe,
    exceptions: Mapping[str, str] | None,
    values: Mapping[str, Tensor],
    measured: np.ndarray | None,
    folder: Path,
    base: str,
    clock: _Clock,
) -> tuple[list[_Built], dict[str, np.ndarray]]:
    """A file for each stage, and what they say of the example."""
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
    clock.start("run")
    found = run_files(made, values["images"].numpy())
    built = []
    for stage, path in made:
        runner = litert.LiteRTRunner(path)
        ports = runner.inputs, runner.outputs
        built.append(_Built(path, stage.name, *ports, runner.operators(), {}))
    return built, found


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
