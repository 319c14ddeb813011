"""The datasets by name, each read from its published layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from ...errors import InputError
from ...recording import Recording


@dataclass(frozen=True)
class Dataset:
    """One dataset. Every module of this folder offers one as ``DATASET``.

    Fields
        name     as given on the command line.
        title    as its paper calls it.
        fetch    what to download, from where, under which terms, and what the root then holds.
        splits   names of its splits; the first is the default.
        read     (root, split) to its recordings, in a fixed order; raises InputError for a root
                 that is missing or not of this layout (the message ends with ``fetch``).
        units    "metres" or "arbitrary".
    """

    name: str
    title: str
    fetch: str
    splits: tuple[str, ...]
    read: Callable[[Path, str], list[Recording]]
    units: str = "metres"


MODULES = {
    "7scenes": "seven_scenes",
    "cameras": "cameras_json",
    "co3d": "co3d",
    "colmap": "colmap",
    "dtu": "dtu",
    "eth3d": "eth3d",
    "kitti": "kitti",
    "nrgbd": "nrgbd",
    "re10k": "re10k",
    "scannet": "scannet",
    "transforms": "transforms",
    "tum": "tum",
    "worlds": "worlds",
}


def dataset(name: str) -> Dataset:
    """The dataset called ``name``.

    Raises:
        InputError: there is none of that name.
    """
    if name not in MODULES:
        raise InputError(f"no dataset is called {name}; there are {', '.join(MODULES)}")
    found: Dataset = import_module(f".{MODULES[name]}", __name__).DATASET
    return found
