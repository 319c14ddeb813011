"""VGGT where people need it: photographs in; cameras, depth and points out.

    import vggt_edge as ve
    model = ve.load("pocket")
    views = ve.read_views("photos/")
    scene = ve.reconstruct(model, views)
    ve.write(scene, "out/", formats=("glb", "html", "colmap"))

Names are imported on first use, so that importing the package costs nothing it does not need.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import align_to_cameras, evaluate, write
    from .attention import make_sparse
    from .compress.compress import compress
    from .errors import VGGTEdgeError
    from .export.run import export
    from .images import load_source, read_views
    from .predict import predict
    from .scene.full_resolution import full_resolution
    from .scene.reconstruct import reconstruct
    from .scene.reconstruct_clusters import reconstruct_clusters
    from .stream import predict_stream
    from .types import Cameras, Prediction, Scene, Views
    from .weights import from_upstream, load, save

__version__ = "0.1.0"

_HOMES = {
    "Cameras": "types",
    "Prediction": "types",
    "Scene": "types",
    "VGGTEdgeError": "errors",
    "Views": "types",
    "align_to_cameras": "api",
    "compress": "compress.compress",
    "evaluate": "api",
    "export": "export.run",
    "from_upstream": "weights",
    "full_resolution": "scene.full_resolution",
    "load": "weights",
    "load_source": "images",
    "make_sparse": "attention",
    "predict": "predict",
    "predict_stream": "stream",
    "read_views": "images",
    "reconstruct": "scene.reconstruct",
    "reconstruct_clusters": "scene.reconstruct_clusters",
    "save": "weights",
    "write": "api",
}

__all__ = [
    "Cameras",
    "Prediction",
    "Scene",
    "VGGTEdgeError",
    "Views",
    "align_to_cameras",
    "compress",
    "evaluate",
    "export",
    "from_upstream",
    "full_resolution",
    "load",
    "load_source",
    "make_sparse",
    "predict",
    "predict_stream",
    "read_views",
    "reconstruct",
    "reconstruct_clusters",
    "save",
    "write",
]


class _Package(ModuleType):
    """Keeps the names ``predict`` and ``evaluate`` for the functions, not for the submodules.

    Importing a submodule binds it in its package, in whatever order things are imported.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _HOMES or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vggt_edge' has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
