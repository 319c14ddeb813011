"""Training of a VGGT on procedural worlds."""
