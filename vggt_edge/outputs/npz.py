"""Everything in one ``.npz``: each array of a prediction or scene under a plain name, no pickle.

Keys (S views of H x W, N points; frames, units and pixels as in ``types``)
    format                     "vggt-edge 1"
    names, sources             (S,) text
    images                     (S, H, W, 3) uint8
    source_sizes               (S, 2) height and width of the pictures the views came from
    source_from_view           (S, 3, 3) view pixels to source pixels
    valid                      (S, 4) top, left, bottom, right of the picture inside each view
    intrinsics                 (S, 3, 3) of the views
    source_intrinsics          (S, 3, 3) of the source pictures
    camera_from_world          (S, 3, 4) extrinsics
    world_from_camera          (S, 3, 4) their inverse: poses
    camera_sizes               (S, 2) height and width that ``intrinsics`` belong to
    depth, depth_confidence    (S, H, W) float32
    point_map                  (S, H, W, 3) float32, the point head's world points
    point_map_confidence       (S, H, W) float32
    points, colors, confidence, view_index, pixel, units    the scene's filtered cloud, N rows

Keys of heads that were not run are absent; those of the cloud are there for a scene only.
``source_intrinsics`` and ``world_from_camera`` are derived: written for the reader's convenience.
"""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import replacing
from ..types import Cameras, Prediction, Scene, Views

FORMAT = "vggt-edge 1"

# Key -> kinds of number allowed and shape; a letter stands for the same length wherever it appears.
_ARRAYS: dict[str, tuple[str, tuple[str | int, ...]]] = {
    "names": ("U", ("S",)),
    "sources": ("U", ("S",)),
    "images": ("u", ("S", "H", "W", 3)),
    "source_sizes": ("iu", ("S", 2)),
    "source_from_view": ("f", ("S", 3, 3)),
    "valid": ("iu", ("S", 4)),
    "intrinsics": ("f", ("S", 3, 3)),
    "camera_from_world": ("f", ("S", 3, 4)),
    "camera_sizes": ("iu", ("S", 2)),
    "depth": ("f", ("S", "H", "W")),
    "depth_confidence": ("f", ("S", "H", "W")),
    "point_map": ("f", ("S", "H", "W", 3)),
    "point_map_confidence": ("f", ("S", "H", "W")),
    "points": ("f", ("N", 3)),
    "colors": ("u", ("N", 3)),
    "confidence": ("f", ("N",)),
    "view_index": ("iu", ("N",)),
    "pixel": ("iu", ("N", 2)),
    "units": ("U", ()),
}
# What zipfile and numpy raise on bytes that are not theirs, as fuzzing found.
_UNREADABLE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, MemoryError, OverflowError),
    *(SyntaxError, UserWarning, struct.error, zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)
_VIEWS = ("names", "sources", "images", "source_sizes", "source_from_view", "valid")
_CAMERAS = ("intrinsics", "camera_from_world", "camera_sizes")
_MAPS = ("depth", "depth_confidence", "point_map", "point_map_confidence")
_CLOUD = ("points", "colors", "confidence", "view_index", "pixel", "units")


def write(result: Prediction | Scene, path: str | Path) -> Path:
    """Write a prediction or a scene; ``read`` gives the same back, bit for bit.

    Raises:
        OutputError: the file cannot be written.
    """
    path = Path(path)
    prediction = result.prediction if isinstance(result, Scene) else result
    views = prediction.views
    arrays: dict[str, np.ndarray | None] = {
        "format": np.array(FORMAT),
        "names": np.array(views.names, dtype=np.str_),
        "sources": np.array(views.sources, dtype=np.str_),
        "images": views.images,
        "source_sizes": views.source_sizes,
        "source_from_view": views.source_from_view,
        "valid": views.valid,
        "depth": prediction.depth,
        "depth_confidence": prediction.depth_confidence,
        "point_map": prediction.points,
        "point_map_confidence": prediction.points_confidence,
    }
    if prediction.cameras is not None:
        cameras = prediction.cameras
        arrays |= {
            "intrinsics": cameras.intrinsics,
            "source_intrinsics": prediction.source_cameras.intrinsics,
            "camera_from_world": cameras.camera_from_world,
            "world_from_camera": cameras.world_from_camera,
            "camera_sizes": cameras.sizes,
        }
    if isinstance(result, Scene):
        arrays |= {
            "points": result.points,
            "colors": result.colors,
            "confidence": result.confidence,
            "view_index": result.view_index,
            "pixel": result.pixel,
            "units": np.array(result.units),
        }
    # Uncompressed: deflate takes many times as long to save a tenth of float32 noise.
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for key, array in arrays.items():
            if array is not None:
                with archive.open(f"{key}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)
    return path


def read(path: str | Path) -> Prediction | Scene:
    """Read what ``write`` wrote: a Scene if the file holds a cloud, else a Prediction.

    Raises:
        InputError: not such a file, truncated, or with arrays that do not fit together.
    """
    path = Path(path)
    try:
        # np.load leaves a file open that it opened itself and found to be no zip.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            if str(file.get("format")) != FORMAT:
                raise InputError(f"{path} is not an .npz of this package (no format '{FORMAT}')")
            arrays = {key: file[key] for key in _ARRAYS if key in file}
    except _UNREADABLE as error:
        raise InputError(f"cannot read {path} as .npz: {error}; write it again") from error
    _check(arrays, path)

    views = Views(
        images=arrays["images"],
        names=tuple(map(str, arrays["names"])),
        sources=tuple(map(str, arrays["sources"])),
        source_sizes=arrays["source_sizes"],
        source_from_view=arrays["source_from_view"],
        valid=arrays["valid"],
    )
    cameras = None
    if "intrinsics" in arrays:
        cameras = Cameras(arrays["intrinsics"], arrays["camera_from_world"], arrays["camera_sizes"])
    prediction = Prediction(views, cameras, *(arrays.get(key) for key in _MAPS))
    if "points" not in arrays:
        return prediction
    points, colors, confidence, view_index, pixel, units = (arrays[key] for key in _CLOUD)
    return Scene(prediction, points, colors, confidence, view_index, pixel, str(units))


def _check(arrays: dict[str, np.ndarray], path: Path) -> None:
    for group in (_VIEWS, _CAMERAS, _CLOUD):
        missing = [key for key in group if key not in arrays]
        if missing and (group is _VIEWS or len(missing) < len(group)):
            raise InputError(f"{path} lacks {', '.join(missing)}; write it again")
    lengths: dict[str | int, int] = {}
    for key, array in arrays.items():
        kinds, shape = _ARRAYS[key]
        fits = array.dtype.kind in kinds and len(array.shape) == len(shape)
        for name, length in zip(shape, array.shape, strict=False):
            expected = name if isinstance(name, int) else lengths.setdefault(name, length)
            fits = fits and expected == length
        if not fits:
            wanted = " x ".join(map(str, shape)) or "a scalar"
            raise InputError(
                f"{path}: {key} has shape {array.shape} of {array.dtype}, wanted {wanted} "
                f"(kind {kinds}, sizes {lengths}); write it again"
            )
