"""Scripts that run in a gate's own environment: numpy, the runtime and nothing of this package.

Each is called with a folder. It reads ``job.json`` and ``images.npy``, (N, ...) float32, there, and
writes ``result.npz``, output to (N, ...) float32, and ``facts.json``. ``passes`` is what
they share.
"""
