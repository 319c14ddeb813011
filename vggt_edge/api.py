"""Where rooms of one floor meet for Python callers, as they do for the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from . import outputs
from .evaluate import report as report_page
from .evaluate.evaluation import Evaluation, Task, prepare, run
from .evaluate.known_cameras import read_known_cameras
from .evaluate.run import Method, Predictor
from .model.config import VGGTConfig
from .model.identity import identity_of
from .model.vggt import VGGT
from .predict import predict
from .scene.full_resolution import full_resolution as full_resolution_of
from .scene.known_cameras import align_to_known
from .scene.tracks import build_sparse_model
from .types import Scene


def default_size(config: VGGTConfig) -> int:
    """Longer side of the views a network does well with: 518, less for small networks."""
    return min(518, config.image_size)


def align_to_cameras(scene: Scene, path: str | Path) -> Scene:
    """The scene in the world, and at the scale, of cameras that are known.

    Pictures are matched by file name. One robust similarity moves the whole scene; its cameras are
    laid onto the known ones, not replaced by them. ``scene.units`` becomes "metres" where a
    cameras.json says so, and stays "arbitrary" for formats that do not tell.

    Args:
        scene: from ``reconstruct``.
        path: a ``transforms.json`` (nerfstudio, NeRF), a COLMAP folder or a ``cameras.json``.

    Raises:
        InputError: no such file, or malformed; fewer than three of the pictures are in it; the
            cameras are all in one place, or do not fit.
    """
    return align_to_known(scene, read_known_cameras(path))


def write(
    scene: Scene,
    folder: str | Path,
    formats: Sequence[str] = ("glb", "html"),
    *,
    full_resolution: bool = False,
    link: bool = False,
) -> dict[str, Path]:
    """Write a scene in several formats, each file whole or not at all.

    Args:
        scene: from ``reconstruct``.
        folder: made if need be; files are called ``scene`` plus the suffix of their format.
        formats: names from ``outputs.FORMATS``.
        full_resolution: depth maps at the size of the source pictures, not of the views.
        link: make hard links to the source pictures instead of copies, where that is possible.

    Returns:
        Format to the path to hand to the next program.

    Raises:
        OutputError: an unknown format, a folder that cannot be written, a full disk.
        ImageError: a source picture that "colmap", "colmap-text" or "transforms" needs has gone;
            all other formats are written by then.
        MissingExtraError: a format's package is not installed.
    """
    formats = outputs.check_formats(formats)
    sparse = build_sparse_model(scene) if outputs.NEEDS_SPARSE_MODEL & set(formats) else None
    return outputs.write(
        scene,
        folder,
        formats,
        full_resolution=full_resolution_of if full_resolution else None,
        sparse_model=sparse,
        link=link,
    )


def method(
    model: VGGT | Predictor, name: str, *, size: int | None = None, mode: str = "keep"
) -> Method:
    """What ``evaluation.run`` scores, of a network or of any callable from Views to Prediction.

    Args:
        model: predictions of a callable are made anew in every run, as nobody can tell whether it
            is still the same; one with a text attribute ``identity`` can be reused.
        name: of its folder and column.
        size: longer side of the views; by default what suits the network, for a callable its
            attribute ``size``, or 518.
        mode: how pictures become views, as in ``read_views``.
    """
    if not isinstance(model, VGGT):
        identity = getattr(model, "identity", None)
        longer = int(getattr(model, "size", 518)) if size is None else size
        return Method(name, model, longer, getattr(model, "patch", 14), mode, identity)
    wanted = tuple(head for head in model.config.heads if head != "track")
    return Method(
        name,
        partial(predict, model, heads=wanted),
        size or default_size(model.config),
        model.config.patch_size,
        mode,
        identity_of(model),
    )


def evaluate(
    models: VGGT | Predictor | Mapping[str, VGGT | Predictor],
    dataset: str,
    *,
    root: str | Path,
    split: str | None = None,
    protocol: str = "vggt-edge",
    size: int | None = None,
    mode: str | None = None,
    views: int | None = None,
    stride: int | None = None,
    limit: int | None = None,
    draws: str = "sequence",
    colmap: bool = True,
    out: str | Path = "evaluation",
    report: bool = False,
    progress: bool = False,
) -> Evaluation:
    """Score one model or several on data with known truth, beside what a baseline does.

    Args:
        models: a network, any callable from Views to Prediction (compressed, sparse, exported), or
            several of either by name; differences are between the first two.
        dataset: "7scenes", "nrgbd", "co3d", ...: see ``evaluate.datasets``.
        root: folder of the dataset.
        split: of the dataset; its first when None.
        protocol: whose tables the numbers may stand beside: "vggt-edge" (nobody's, any dataset),
            "vggt", "quantvggt", "pi3", ...: see ``evaluate.protocols``.
        size: longer side of the views; by default what suits each model.
        mode: how pictures become views, as in ``read_views``; the protocol's when None.
        views: per recording, instead of the protocol's.
        stride: take every so many frames, from the first on.
        limit: at most so many recordings, spread evenly.
        draws: of random frames: "sequence", each recording by itself, or "published", in one chain
            through the split as the papers' scripts do.
        colmap: run COLMAP on the same pictures, where poses are scored.
        out: folder for predictions, ``<dataset>.json`` and the page. The same call resumes a run.
        report: write ``<dataset>.html``, with plots and the worst cases.
        progress: show bars for work over two seconds.

    Raises:
        InputError: an unknown name, a root that is missing or of another layout, nothing to score.
        ImageError: a picture cannot be read.
        OutputError: the folder cannot be written.
    """
    task = prepare(
        dataset,
        root,
        split=split,
        protocol=protocol,
        views=views,
        stride=stride,
        limit=limit,
        draws=draws,
    )
    named = models if isinstance(models, Mapping) else {_name_of(models): models}
    mode = mode or task.protocol.mode
    methods = [method(one, name, size=size, mode=mode) for name, one in named.items()]
    return finish_evaluation(task, methods, out, colmap=colmap, report=report, progress=progress)


def finish_evaluation(
    task: Task,
    methods: Sequence[Method],
    out: str | Path,
    *,
    colmap: bool = True,
    report: bool = False,
    progress: bool = False,
) -> Evaluation:
    """The part of ``evaluate`` after the dataset and the models are read."""
    evaluation = run(task, methods, out, colmap=colmap, progress=progress)
    evaluation.write(Path(out) / f"{task.dataset.name}.json")
    if report:
        report_page.write(evaluation, Path(out) / f"{task.dataset.name}.html")
    return evaluation


def _name_of(model: VGGT | Predictor) -> str:
    name = getattr(model, "__name__", type(model).__name__)
    return "model" if isinstance(model, VGGT) else name.strip("<>")
