"""Render the pictures that ``retrieval/tokens.py`` compares with: one view each of 48 worlds.

    python benchmarks/reference_pictures.py

Writes ``vggt_edge/assets/reference.jpg``, a mosaic of 6 x 8 tiles of 112 pixels.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from vggt_edge import worlds

ROWS, COLS, SIZE = 6, 8, 112
SEED = 2**42 + 5  # no world of training, validation or the benchmarks


def main() -> None:
    images = worlds.render(SEED, ROWS * COLS, 1, SIZE, SIZE).images[:, 0]
    tiles = (images.permute(0, 2, 3, 1) * 255).round().byte().numpy()
    rows = tiles.reshape(ROWS, COLS, SIZE, SIZE, 3).transpose(0, 2, 1, 3, 4)
    mosaic = Image.fromarray(rows.reshape(ROWS * SIZE, COLS * SIZE, 3))
    path = Path(worlds.__file__).parent.parent / "assets" / "reference.jpg"
    mosaic.save(path, quality=85)
    print(path)


if __name__ == "__main__":
    main()
