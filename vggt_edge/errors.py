"""Everything the package raises on purpose.

    Exception
    └── VGGTEdgeError            base; its message is one line: the culprit and the way out
        ├── InputError           something the user handed in cannot be used
        │   ├── ImageError       an image, video, folder or URL
        │   ├── CheckpointError  a weight file: corrupt, hostile, wrong names or shapes
        │   ├── BundleError      an exported bundle: corrupt, incomplete, of another format
        │   └── RecipeError      a compression that is unknown, impossible or does not fit
        ├── OutputError          a result cannot be written
        ├── MissingExtraError    an optional package is not installed
        ├── OfflineError         the network is needed and is not there
        ├── TooLargeError        the work would not fit in memory
        ├── ExportError          a network that cannot be brought to a target
        ├── WorkerError          machines that were to do the work are lost
        │   └── LostItemsError   some parts of the work were too much for any of them
        └── NumericError         a result is not finite

The command line prints ``str(error)`` and exits with ``error.exit_code``: 2 when what was asked for
makes no sense as it stands (bad usage), 1 when the work failed.
"""


class VGGTEdgeError(Exception):
    """Base of every deliberate error of the package."""

    exit_code = 1


class InputError(VGGTEdgeError):
    """Something the user handed in cannot be used; itself about options, its heirs about files."""

    exit_code = 2


class ImageError(InputError):
    """An image, video, folder or URL that cannot be turned into views."""

    exit_code = 1


class CheckpointError(InputError):
    """A weight file that is corrupt, hostile or of another architecture."""

    exit_code = 1


class BundleError(InputError):
    """An exported bundle that is corrupt, incomplete or of another format."""

    exit_code = 1


class RecipeError(InputError):
    """A compression recipe that is unknown, impossible, or does not fit what it is for."""


class OutputError(VGGTEdgeError):
    """A result that cannot be written where it was asked for."""


class MissingExtraError(VGGTEdgeError):
    """An optional package is needed; the message holds the ``pip install`` line."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(
            f"{purpose} needs {package}, which is not installed: pip install 'vggt-edge[{extra}]'"
        )


class OfflineError(VGGTEdgeError):
    """The network is needed and cannot be reached."""


class TooLargeError(VGGTEdgeError):
    """The work would not fit in this machine's memory; the message holds estimate and options."""


class NumericError(VGGTEdgeError):
    """A network's output, or a gradient, is not finite."""


class ExportError(VGGTEdgeError):
    """A network that cannot be brought to a target, or whose export is not the same network."""


class WorkerError(VGGTEdgeError):
    """Other machines, or processes on them, were to do the work and are lost for good."""


class LostItemsError(WorkerError):
    """Parts of the work whose workers were lost every time; all other parts were done."""
