"""A float network to packed integers, block by block, by any method."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ..errors import InputError, RecipeError
from ..model.layers import Linear
from ..model.quantized import QuantLinear, schemes
from ..model.quantized_conv import conv_schemes
from ..model.swap import place
from ..model.vggt import VGGT
from ..predict import check_views, to_tensor
from ..recipe import Recipe, Scheme
from ..types import Views
from . import walk
from .apply import behind, quantized, round_convolutions
from .bias import correct_bias
from .blockwise import train
from .calibration import LayerInputs, collect
from .calibration_set import as_scenes
from .clip import clip_activations
from .gptq import gptq
from .layer import Choice, Problem, better, make_problem, output_error, simplest
from .methods import Method, method_of
from .nearest import Grid, nearest
from .report import CompressReport, LayerReport, StageReport
from .resume import Journal
from .rotate import fold_values
from .rules import idle_rules
from .smooth import smooth, smoothed
from .task_scale import Targets, Truth, search_exponents, targets_from_truth, targets_of
from .token_filter import compensate, compensation_token, token_statistics

ROWS = 4096


def compress(
    model: VGGT,
    recipe: Recipe | str,
    *,
    method: str | Method = "auto",
    calibration: Views | Sequence[Views] | None = None,
    truth: Sequence[Truth] | None = None,
    rows: int = ROWS,
    seed: int = 0,
    work: str | Path | None = None,
    progress: bool = False,
    compensation: bool = False,
) -> CompressReport:
    """Quantize a float network in place.

    Methods are for linear layers; the convolutions a recipe names are rounded to the nearest.

    Args:
        model: from ``load``, best in float32; its float layers go as their integers come.
        recipe: which layer gets which precision, or its name.
        method: a name of ``methods.METHODS``: "minmax" and "nearest" need no pictures; "smooth",
            "awq", "clip", "gptq", "bias", "qvggt", "quantvggt" and "auto" do. "auto" is "nearest"
            when there is no calibration.
        calibration: pictures like those the network will see: one set of views a scene. Views of
            more than ten are dealt out into scenes.
        truth: ground truth of each scene, for "qvggt"; the float network is the teacher when None.
        rows: tokens kept of each layer.
        seed: of whatever is drawn.
        work: folder in which finished blocks are kept; the same call resumes there.
        progress: show a bar for work over two seconds.
        compensation: give the camera head QVGGT's compensation token, made of the calibration by
            the float network, whatever the method; see ``token_filter``.

    Raises:
        RecipeError: the network is compressed already, or the recipe, or a rule of it, names no
            layer of it. Rules for heads it was loaded without are reported instead.
        InputError: an unknown method, or one that needs a calibration and has none.
    """
    recipe = Recipe(recipe) if isinstance(recipe, str) else recipe
    chosen_by = method_of(method)
    if chosen_by.name == "auto" and calibration is None:
        chosen_by = method_of("nearest")
    if model.recipe is not None:
        raise RecipeError(f"the network is compressed with {model.recipe.name} already")
    idle = idle_rules(model, recipe)
    chosen = schemes(model, recipe)
    if not chosen and not conv_schemes(model, recipe):
        raise RecipeError(f"{recipe.name} matches no layer of this network that it can hold")
    if chosen_by.data and calibration is None:
        raise InputError(
            f"method {chosen_by.name!r} needs calibration pictures; 'nearest' needs none"
        )
    scenes = [] if calibration is None or not chosen_by.data else as_scenes(calibration)
    for views in scenes:
        check_views(model.config, views)
    if truth is not None and len(truth) != len(scenes):
        raise InputError(f"{len(truth)} truths for {len(scenes)} calibration scenes")
    token = None
    if compensation:
        if calibration is None:
            raise InputError("a compensation token needs calibration pictures")
        token = compensation_token(token_statistics(model, as_scenes(calibration)))
    work_done = _Compression(model, recipe, chosen, chosen_by, rows, seed, idle)
    report = work_done.run(scenes, truth, work, progress)
    if token is not None:
        compensate(model, token)
    return report


class _Compression:
    """One run of ``compress``, whose arguments were checked."""

    def __init__(
        self,
        model: VGGT,
        recipe: Recipe,
        chosen: dict[str, Scheme],
        method: Method,
        rows: int,
        seed: int,
        idle: tuple[str, ...],
    ):
        self.model, self.recipe, self.chosen, self.method = model, recipe, chosen, method
        self.rows, self.seed, self.idle = rows, seed, idle
        self.layers: dict[str, LayerReport] = {}
        self.stages: list[StageReport] = []

    @torch.no_grad()
    def run(
        self,
        scenes: Sequence[Views],
        truth: Sequence[Truth] | None,
        work: str | Path | None,
        progress: bool,
    ) -> CompressReport:
        model, began, before = self.model, time.perf_counter(), _bytes(self.model)
        device = next(model.parameters()).device
        images = [to_tensor(views, device) for views in scenes]
        journal = None
        if work is not None:
            settings = f"{self.recipe.name} {self.method} {self.rows} {self.seed}"
            given = [views.images for views in scenes]
            for one in truth or ():
                cameras = one.cameras
                given += [cameras.intrinsics, cameras.camera_from_world, one.depth, one.valid]
            journal = Journal(work, model, self.chosen, settings, given)
        if self.method.fold:
            fold_values(model, self.chosen)
        if images:
            self._by_stage(images, truth, journal, progress)
        rest = [path for path in self.chosen if path not in self.layers]
        for path in tqdm(rest, desc="quantize", delay=2, leave=False, disable=not progress):
            self._alone(path)
        convolutions = round_convolutions(model, self.recipe, self.method.search)
        model.recipe = self.recipe
        return CompressReport(
            recipe=self.recipe.name,
            method=self.method.name,
            layers=tuple(self.layers[path] for path in self.chosen),
            stages=tuple(self.stages),
            convolutions=len(convolutions),
            float_layers=sum(isinstance(layer, Linear) for layer in model.modules()),
            bytes_before=before,
            bytes_after=_bytes(model),
            scenes=len(scenes),
            views=sum(map(len, scenes)),
            seconds=time.perf_counter() - began,
            runs_on=self.recipe.runs_on,
            idle=self.idle,
        )

    def _linear(self, path: str) -> Linear:
        linear = self.model.get_submodule(path)
        if not isinstance(linear, Linear):
            raise TypeError(f"{path} is {type(linear).__name__}")
        return linear

    def _put(self, path: str, choice: Choice, linear: Linear) -> QuantLinear:
        scheme = self.chosen[path]
        layer = quantized(linear, path, scheme, choice.codes, choice.gain, choice.clip)
        if choice.shift is not None:
            layer.bias = layer.bias + choice.shift
        layer = layer.to(linear.weight.device)
        place(self.model, path, layer)
        return layer

    def _alone(self, path: str) -> None:
        """A layer without calibration: rounded to the nearest."""
        linear, scheme = self._linear(path), self.chosen[path]
        weight = behind(linear.weight.detach(), scheme, path)
        codes = nearest(weight, scheme, search=self.method.search)

        def lost(answer: Tensor) -> float:
            return float((answer - weight).square().sum() / weight.square().sum().clamp(min=1e-30))

        layer = self._put(path, Choice(codes), linear)
        self.layers[path] = LayerReport(
            path=path,
            scheme=scheme.name,
            error=lost(codes.weight()),
            nearest=lost(nearest(weight, scheme).weight()),
            how="nearest" if self.method.search else "min-max",
            patch=0.0,
            special=0.0,
            bytes=sum(t.nbytes for t in layer.buffers()),
        )

    def _by_stage(
        self,
        images: Sequence[Tensor],
        truth: Sequence[Truth] | None,
        journal: Journal | None,
        progress: bool,
    ) -> None:
        model, method = self.model, self.method
        targets: list[Targets] = []
        if method.task:
            targets = (
                [targets_from_truth(one) for one in truth]
                if truth is not None
                else [targets_of(model(one)) for one in images]
            )
        exact = [walk.begin(model, one) for one in images]
        seen = list(exact)
        parts = walk.stages(model)
        for stage in tqdm(parts, desc="compress", unit="block", delay=2, leave=False,
                          disable=not progress):  # fmt: skip
            paths = [path for path in self.chosen if path.startswith(f"{stage.path}.")]
            answers = [walk.run(stage, tokens) for tokens in exact]
            done = journal.read(stage.path) if journal and paths else None
            if done is not None:
                for path, layer in done.layers.items():
                    place(model, path, layer.to(self._linear(path).weight.device))
                self.layers |= done.reports
            elif paths:
                inputs = collect(model, stage, seen, paths, self.rows, self.seed).inputs
                self._solve(stage, seen, answers, inputs, images, targets)
                if journal:
                    journal.write(stage.path, model, {path: self.layers[path] for path in paths})
            reached = [walk.run(stage, tokens) for tokens in seen]
            self.stages.append(StageReport(stage.path, _relative(reached, answers)))
            exact = self._after(stage, exact, answers)
            seen = self._after(stage, seen, reached) if method.propagate else list(exact)

    def _after(
        self, stage: walk.Stage, scenes: Sequence[walk.Tokens], outputs: Sequence[Tensor]
    ) -> list[walk.Tokens]:
        return [
            walk.advance(self.model, stage, tokens, y)
            for tokens, y in zip(scenes, outputs, strict=True)
        ]

    def _solve(
        self,
        stage: walk.Stage,
        seen: Sequence[walk.Tokens],
        answers: Sequence[Tensor],
        inputs: Mapping[str, LayerInputs],
        images: Sequence[Tensor],
        targets: Sequence[Targets],
    ) -> None:
        """Choose integers for a stage's layers and put them there."""
        floats = {path: self._linear(path) for path in inputs}
        problems = {
            path: make_problem(path, self.chosen[path], floats[path], inputs[path])
            for path in inputs
        }

        def put(choices: Mapping[str, Choice]) -> None:
            for path, choice in choices.items():
                self._put(path, choice, floats[path])

        def stage_error(choices: Mapping[str, Choice]) -> float:
            put(choices)
            return _relative([walk.run(stage, tokens) for tokens in seen], answers)

        method = self.method
        plain = {path: simplest(problem) for path, problem in problems.items()}
        if method.task:
            best = search_exponents(
                self.model, problems, images, targets, put, patches_only=method.patches_only
            )
        else:
            best = {path: self._layerwise(problems[path], plain[path]) for path in problems}
        if method.epochs:
            for path, linear in floats.items():
                place(self.model, path, linear)
            trained = train(
                self.model,
                stage,
                seen,
                answers,
                best,
                self.chosen,
                method.epochs,
                method.train_gains,
                method.train_weight_clips,
                method.train_activation_clips,
                self.seed,
            )
            candidates = [best, trained, plain]
            if method.gptq:
                candidates.insert(
                    0,
                    {
                        path: gptq(problems[path], one, Grid(one.codes.scale, one.codes.multiplier))
                        for path, one in trained.items()
                    },
                )
            best = min(candidates, key=stage_error)
        if method.bias:
            best = {path: correct_bias(problems[path], one) for path, one in best.items()}
        for path, choice in best.items():
            problem = problems[path]
            layer = self._put(path, choice, floats[path])
            sizes = inputs[path].magnitudes()
            self.layers[path] = LayerReport(
                path=path,
                scheme=self.chosen[path].name,
                error=output_error(problem, choice),
                nearest=output_error(problem, plain[path]),
                how=choice.note,
                patch=sizes["patch"],
                special=sizes["special"],
                bytes=sum(t.nbytes for t in layer.buffers()),
            )

    def _layerwise(self, problem: Problem, plain: Choice) -> Choice:
        """The method's parts that look at one layer, one after the other."""
        method, best = self.method, plain
        if method.smoothing and method.exponent is not None:
            best = smoothed(
                problem, method.smoothing, method.exponent, method.search, method.patches_only
            )
        elif method.smoothing:
            found = smooth(
                problem, method.smoothing, search=method.search, patches_only=method.patches_only
            )
            best = better(problem, best, found)
        if method.activation_clip:
            best = clip_activations(problem, best)
        if method.gptq and not method.epochs:
            best = better(problem, best, gptq(problem, best))
        return best


def _relative(outputs: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """Squared error of outputs over the square of what they should be."""
    pairs = list(zip(outputs, exact, strict=True))
    lost = sum(float((y - answer).square().sum()) for y, answer in pairs)
    return lost / max(sum(float(answer.square().sum()) for _, answer in pairs), 1e-30)


def _bytes(model: VGGT) -> int:
    return sum(tensor.nbytes for tensor in model.state_dict().values())
