"""One unit descriptor per view, whose cosine says how alike two views are.

Two methods, told apart by the network that is handed in: a VGGT describes views by its own
encoder's tokens, without a second network; a MegaLoc, from ``load_megaloc``, is trained to find
places.
"""

from __future__ import annotations

from .describe import METHODS, SAME_PLACE, descriptors, method
from .megaloc import load_megaloc
from .tokens import Vocabulary, fit_vocabulary

__all__ = [
    "METHODS",
    "SAME_PLACE",
    "Vocabulary",
    "descriptors",
    "fit_vocabulary",
    "load_megaloc",
    "method",
]
