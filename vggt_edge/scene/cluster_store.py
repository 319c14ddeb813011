"""One file for each finished forward pass, so that a run that was stopped does not start again."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from ..files import replacing
from ..types import Cameras, Prediction, Views

_FIELDS = ("depth", "depth_confidence", "points", "points_confidence")


class ClusterStore:
    """Predictions in a folder, found again by the pixels that went in and what predicted them.

    Files are safetensors named ``cluster-<key>``, written whole or not at all. Nothing is ever
    removed: a folder can be shared by runs with other clusters or other networks.
    """

    def __init__(self, folder: str | Path, identity: str) -> None:
        self.folder = Path(folder)
        self._identity = identity

    def path(self, views: Views) -> Path:
        """Where the prediction of these views is or will be."""
        key = hashlib.sha256(self._identity.encode())
        key.update(repr((views.images.shape, views.names)).encode())
        for array in (views.images, views.valid.astype(np.int64)):
            key.update(np.ascontiguousarray(array).tobytes())
        return self.folder / f"cluster-{key.hexdigest()[:24]}.safetensors"

    def load(self, views: Views) -> Prediction | None:
        """The stored prediction of these views; None when there is none that can be read."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = self.path(views)
        if not path.exists():
            return None
        try:
            tensors = load_file(path)
            cameras = Cameras(tensors["intrinsics"], tensors["camera_from_world"], tensors["sizes"])
        except (SafetensorError, KeyError, OSError):
            return None  # damaged: it will be predicted again
        return Prediction(views, cameras, **{name: tensors.get(name) for name in _FIELDS})

    def save(self, prediction: Prediction) -> None:
        """Write a prediction.

        Raises:
            OutputError: the folder cannot be written, or the disk is full.
        """
        from safetensors.numpy import save

        cameras = prediction.cameras
        assert cameras is not None  # checked before a pass counts as finished
        tensors = {
            "intrinsics": cameras.intrinsics,
            "camera_from_world": cameras.camera_from_world,
            "sizes": cameras.sizes,
        }
        for name in _FIELDS:
            if (value := getattr(prediction, name)) is not None:
                tensors[name] = value
        data = save({name: np.ascontiguousarray(value) for name, value in tensors.items()})
        with replacing(self.path(prediction.views)) as temporary:
            temporary.write_bytes(data)
