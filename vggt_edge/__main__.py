"""``python -m vggt_edge`` is the command line."""

from .cli import main

main()
