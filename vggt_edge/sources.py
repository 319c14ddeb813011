"""What people hand in, folders, globs, files and URLs, to a list of local files."""

from __future__ import annotations

import glob
import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from . import pictures, video
from .errors import InputError
from .pictures import unusable

DOWNLOAD_TIMEOUT = 20.0
DOWNLOAD_LIMIT = 1 << 30


@dataclass(frozen=True)
class Source:
    """A picture or video file.

    Fields
        path      the local file.
        source    what to call it: its absolute path, or the URL it was fetched from.
        is_video  a video, not a picture.
    """

    path: str
    source: str
    is_video: bool

    @property
    def stem(self) -> str:
        """Its name without folder and extension."""
        return Path(self.path).stem


def is_url(text: str) -> bool:
    """Whether this is an http(s) address and not a path."""
    return text.lower().startswith(("http://", "https://"))


def expand(
    inputs: str | Path | Sequence[str | Path], folder: str, progress: bool = False
) -> list[Source]:
    """The files behind ``inputs``, in the order given; folders and globs in natural order.

    Args:
        inputs: one or many of: a folder (its images; else those in its ``images`` sub-folder; else
            its videos), a glob, an image, a video, an http(s) URL of an image or a video.
        folder: where downloads go; the caller removes it.
        progress: show a bar for downloads.

    Raises:
        ImageError: an input that does not exist, matches nothing, holds no images or cannot be
            fetched.
        InputError: something that is no path at all.
    """
    given = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    if not given:
        raise unusable("no input", "the list of images is empty", "give a folder or some files")
    found: list[Source] = []
    for one in given:
        if not isinstance(one, (str, Path)):
            raise InputError(f"an input must be a path or URL, not {type(one).__name__}")
        text = str(one)
        if is_url(text):
            found.append(download(text, folder, progress))
            continue
        path = os.path.abspath(os.path.expanduser(text))
        if os.path.isdir(path):
            found += _in_folder(path)
        elif os.path.exists(path):
            found.append(_file(path))
        elif glob.has_magic(text):
            found += _in_glob(path)
        elif "://" in text:
            raise unusable(text, "is a stream, not a file", "watch it: --watch SECONDS")
        else:
            raise unusable(text, "does not exist", "check the path")
    return found


def download(url: str, folder: str, progress: bool = False) -> Source:
    """Fetch a URL into ``folder``.

    Raises:
        ImageError: unreachable, too slow, too large, cut short, or neither image nor video.
    """
    remedy = "check the address and the connection, or download it yourself and give the file"
    name = urllib.parse.unquote(re.split(r"[?#]", url)[0]).rsplit("/", 1)[-1]
    name = re.sub(r"[^\w.-]", "_", name)[-100:].lstrip(".") or "download"
    # A folder of its own keeps equal names of different addresses apart.
    path = os.path.join(folder, str(len(os.listdir(folder))), name)
    os.mkdir(os.path.dirname(path))
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "vggt-edge"})
        with urllib.request.urlopen(request, timeout=DOWNLOAD_TIMEOUT) as reply:
            expected = int(reply.headers.get("Content-Length") or 0)
            with (
                open(path, "wb") as file,
                tqdm(
                    total=expected or None,
                    desc=name,
                    unit="B",
                    unit_scale=True,
                    delay=2,
                    leave=False,
                    disable=not progress,
                ) as bar,
            ):
                while chunk := reply.read(1 << 18):
                    file.write(chunk)
                    bar.update(len(chunk))
                    if file.tell() > DOWNLOAD_LIMIT or expected > DOWNLOAD_LIMIT:
                        raise unusable(
                            url,
                            f"is larger than {DOWNLOAD_LIMIT / 2**20:.0f} MB",
                            "download it yourself and give the file",
                        )
                received = file.tell()
        if received < expected:
            raise unusable(url, f"stopped after {received} of {expected} bytes", remedy)
    except urllib.error.HTTPError as error:
        error.close()
        raise unusable(url, f"the server answered {error.code} {error.reason}", remedy) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise unusable(url, f"cannot be fetched ({reason})", remedy) from error
    head = _head(path)
    if head.lstrip()[:1] == b"<":
        raise unusable(
            url, "is a web page, not an image", "give the address of the image or video itself"
        )
    return Source(path, url, video.is_video(head))


def natural_key(path: str) -> list[str | int]:
    """Sort key that puts frame_2 before frame_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.casefold())]


def _file(path: str) -> Source:
    if not os.path.isfile(path):
        remedy = "give an image, a video or a folder, or watch it: --watch SECONDS"
        raise unusable(path, "is not a regular file", remedy)
    head = _head(path)
    if video.is_video(head):
        return Source(path, path, True)
    if _suffix(path) in video.SUFFIXES:
        problem = "is not a video that can be recognised" if head else "is empty (0 bytes)"
        raise unusable(path, problem, "copy it again, or re-encode it to MP4 with ffmpeg")
    return Source(path, path, False)


def _head(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(200)
    except OSError as error:
        raise unusable(path, f"cannot be read ({error.strerror})", "check the file") from error


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _listing(folder: str) -> tuple[list[str], list[str]]:
    """Files and sub-folders of a folder, in natural order, without hidden ones."""
    try:
        with os.scandir(folder) as entries:
            seen = [(entry.path, entry.is_dir()) for entry in entries if entry.name[0] != "."]
    except OSError as error:
        raise unusable(
            folder, f"cannot be listed ({error.strerror})", "check the folder"
        ) from error
    seen.sort(key=lambda pair: natural_key(os.path.basename(pair[0])))
    return [path for path, is_dir in seen if not is_dir], [path for path, is_dir in seen if is_dir]


def _usable(files: list[str]) -> list[Source]:
    """The images among the files, or the videos if there are none."""
    for suffixes in (pictures.SUFFIXES, video.SUFFIXES):
        if matching := [path for path in files if _suffix(path) in suffixes]:
            return [_file(path) for path in matching]
    return []


def _in_folder(folder: str) -> list[Source]:
    files, folders = _listing(folder)
    if found := _usable(files):
        return found
    for inner in folders:
        if os.path.basename(inner).lower() == "images" and (found := _usable(_listing(inner)[0])):
            return found
    filled = [inner for inner in folders if _usable(_listing(inner)[0])]
    if filled:
        names = ", ".join(os.path.basename(inner) for inner in filled[:4])
        more = ", ..." if len(filled) > 4 else ""
        raise unusable(
            folder,
            f"holds no images itself, its sub-folders do ({names}{more})",
            f"give one of them, or a glob such as '{os.path.join(folder, '**', '*')}' for all",
        )
    kinds = "JPEG, PNG, WebP, TIFF, BMP, HEIC"
    problem = f"holds no images ({len(files)} other files)" if files else "holds no images"
    raise unusable(folder, problem, f"give a folder with {kinds} or a video")


def _in_glob(pattern: str) -> list[Source]:
    matches = sorted(glob.glob(pattern, recursive=True), key=natural_key)
    if found := _usable([path for path in matches if os.path.isfile(path)]):
        return found
    folders = [path for path in matches if os.path.isdir(path)]
    if folders and "**" not in pattern:
        return [source for folder in folders for source in _in_folder(folder)]
    raise unusable(pattern, "matches no image or video", "check the pattern")
