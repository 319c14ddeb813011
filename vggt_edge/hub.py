"""Fetching weights from the Hugging Face hub: progress, resume, licence, and honest failure."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from .errors import CheckpointError, OfflineError, OutputError

# The disk, not the network, refuses.
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
UNKNOWN_LICENSE = "not stated in the file; ask whoever gave it to you"


@dataclass(frozen=True)
class HubFile:
    """One known checkpoint: its file in the repository, the terms of its weights, its network."""

    filename: str
    license: str
    network: str = "VGGT"


KNOWN = {
    "facebook/VGGT-1B": HubFile(
        "model.safetensors", "CC BY-NC 4.0: non-commercial use of weights and outputs only"
    ),
    "facebook/VGGT-1B-Commercial": HubFile(
        "vggt_1B_commercial.pt",
        "VGGT License v1: commercial use allowed, no military use; gated, ask on the model's page",
    ),
    "gberton/MegaLoc": HubFile(
        "model.safetensors",
        "MIT License: any use, as long as its notice stays with copies",
        "MegaLoc",
    ),
}


def notify_stderr(line: str) -> None:
    """Show one line to whoever runs the program."""
    sys.stderr.write(line + "\n")


def fetch(name: str, notify: Callable[[str], None] = notify_stderr) -> Path:
    """Local path of a hub checkpoint; downloads it once, resuming an interrupted download.

    Args:
        name: "owner/name"; for names not in ``KNOWN`` the file is taken to be model.safetensors.
        notify: receives the licence line on first use.

    Raises:
        OfflineError: when the hub cannot be reached and the file is not cached.
        CheckpointError: when the repository or file does not exist, or access was not granted.
        OutputError: when the download cannot be stored.
    """
    import huggingface_hub
    from huggingface_hub import errors

    known = KNOWN.get(name, HubFile("model.safetensors", f"see the page of {name} on the hub"))
    # The HTTP library's own error, whichever library this version of the hub uses, and OSError.
    transport = cast("tuple[type[Exception], ...]", (*errors.HfHubHTTPError.__bases__, OSError))
    offline = OfflineError(
        f"{name}: cannot be fetched, the hub is not reachable from here. Download "
        f"{known.filename} elsewhere and give its path, or use the embedded model 'pocket'"
    )
    try:
        cached = huggingface_hub.try_to_load_from_cache(name, known.filename)
        if isinstance(cached, str):
            return Path(cached)
        notify(f"{name}: {known.license}")
        return Path(huggingface_hub.hf_hub_download(name, known.filename))
    except errors.HFValidationError as error:
        raise CheckpointError(
            f"{name!r}: no file and no hub name; hub names look like {next(iter(KNOWN))}"
        ) from error
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"{name}: gated; ask for access on its hub page, then run `hf auth login`"
        ) from error
    # Before EntryNotFoundError, which it also is: neither cached nor reachable.
    except errors.LocalEntryNotFoundError as error:
        raise offline from error
    except (errors.RepositoryNotFoundError, errors.EntryNotFoundError) as error:
        raise CheckpointError(f"{name}: the hub has no {known.filename} there") from error
    except transport as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise OutputError(
                f"{name}: cannot be stored ({error.strerror}); free some space, or point HF_HOME "
                "at a folder that can be written"
            ) from error
        raise offline from error
