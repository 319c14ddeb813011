"""What is installed of the packages that a target needs."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata

import torch


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of torch and of those packages that are installed, by name."""
    found = {"torch": str(torch.__version__)}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
