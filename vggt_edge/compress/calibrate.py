"""Folders of pictures to a calibration set, in steps that survive an interruption."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from .. import sources
from ..errors import ImageError, InputError
from ..files import check_writable, replacing
from ..images import read_views
from ..model.identity import identity_of
from ..model.vggt import VGGT
from ..predict import to_tensor
from ..recording import Recording
from .calibration_set import CANDIDATES, MANIFEST, write_manifest, write_scene
from .sampling import WHISKER, SceneStatistics, choose, observed, scene_statistics


class Candidate(NamedTuple):
    """Some pictures of one sequence.

    group     the folder that was given, or the scene of a dataset.
    sequence  the folder they lie in, or the recording's name.
    files     paths, the first one fixes the world frame.
    """

    group: str
    sequence: str
    files: tuple[str, ...]


class Pool(NamedTuple):
    """What there is to choose from.

    candidates  drawn of every sequence with enough pictures.
    skipped     sequences with too few.
    """

    candidates: list[Candidate]
    skipped: int


class _Place(NamedTuple):
    """Pictures of one place.

    group     what it is judged among: the folder that was given, or the scene of a dataset.
    sequence  what it is called.
    key       seeds its draws.
    files     paths.
    """

    group: str
    sequence: str
    key: str
    files: list[str]


def find_candidates(
    folders: Sequence[str | Path],
    views: int,
    wanted: int,
    seed: int,
    recordings: Sequence[Recording] = (),
) -> Pool:
    """Draw pictures from every sequence below some folders, and of every recording.

    A folder of pictures is a sequence; of any other folder every one below it with pictures is.

    Args:
        folders: given by people.
        views: pictures of a candidate.
        wanted: candidates in all; each sequence gives equally many, and at least one.
        seed: of the draws; each sequence is drawn by itself.
        recordings: of a dataset, grouped by the first part of their names.

    Raises:
        ImageError: a folder that does not exist, holds no pictures, or too few; recordings of
            which none has enough.
    """
    places: list[_Place] = []
    skipped = 0
    for folder in folders:
        root = Path(folder).expanduser()
        if not root.is_dir():
            raise ImageError(f"{folder}: no such folder; give folders of pictures")
        listed = _sequences(root)
        if not listed:
            raise ImageError(f"{folder}: holds no pictures, nor do its sub-folders")
        enough = {place: files for place, files in listed.items() if len(files) >= views}
        if not enough:
            most = max(map(len, listed.values()))
            raise ImageError(
                f"{folder}: {most} pictures in a sequence at most, of which {views} are to be "
                f"drawn; give more, or --views {max(2, most)}"
            )
        skipped += len(listed) - len(enough)
        places += [
            _Place(str(folder), str(place), _key(root, place), files)
            for place, files in enough.items()
        ]
    long = [one for one in recordings if len(one) >= views]
    if recordings and not long:
        most = max(map(len, recordings))
        raise ImageError(
            f"the dataset's recordings have {most} pictures at most, of which {views} are to be "
            f"drawn; give --views {max(2, most)}"
        )
    skipped += len(recordings) - len(long)
    places += [
        _Place(one.name.partition("/")[0], one.name, one.name, [str(path) for path in one.paths])
        for one in long
    ]
    found: list[Candidate] = []
    for place in places:
        name = f"{seed} {place.key}"
        random = np.random.default_rng(list(hashlib.sha256(name.encode()).digest()))
        for _ in range(-(-wanted // len(places))):
            order = random.choice(len(place.files), views, replace=False)
            files = tuple(place.files[i] for i in order)
            found.append(Candidate(place.group, place.sequence, files))
    return Pool(list(dict.fromkeys(found)), skipped)


def _key(root: Path, place: Path) -> str:
    """What a sequence's draws are seeded by: its place below the folder that was given."""
    return root.name if place == root else place.relative_to(root).as_posix()


def _sequences(root: Path) -> dict[Path, list[str]]:
    """Folders with pictures: the root itself, else all below it, down to the first of each branch.

    Folders that were seen are left out, so that links end.
    """
    found: dict[Path, list[str]] = {}
    seen: set[Path] = set()
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        if folder.resolve() in seen:
            continue
        seen.add(folder.resolve())
        if files := _pictures(folder):
            found[folder] = files
        else:
            waiting += sorted((one for one in folder.iterdir() if one.is_dir()), reverse=True)
    return found


def _pictures(folder: Path) -> list[str]:
    try:
        return [one.path for one in sources.expand(folder, "") if not one.is_video]
    except ImageError:  # none in there
        return []


def calibrate(
    model: VGGT,
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    views: int = 10,
    clusters: int = 5,
    each: int = 4,
    candidates: int | None = None,
    size: int = 518,
    seed: int = 0,
    whisker: float = WHISKER,
    recordings: Sequence[Recording] = (),
    progress: bool = False,
) -> dict[str, Any]:
    """Choose scenes to calibrate with and write them; see ``sampling`` for how.

    The statistics of each candidate are written as they come: the same call goes on where an
    interrupted one stopped.

    Args:
        model: a float network.
        folders: of pictures, or of folders of pictures at any depth; each is a group of its own.
        out: folder of the set.
        views: of a scene.
        clusters, each: so many clusters, and so many scenes of each.
        candidates: to choose from; three times as many as are chosen when None.
        size: longer side of the views.
        seed: of all that is drawn.
        whisker: of the filter, in interquartile ranges.
        recordings: of a dataset, beside or in place of folders.
        progress: show a bar for work over two seconds.

    Returns:
        The manifest. Its "skipped" are sequences of too few pictures, its "missing" the scenes that
        the filter left too few candidates for, its "largest" the largest absolute values of patch
        and of special tokens that enter each block that is looked at.

    Raises:
        ImageError: a folder that is missing, empty, too small, or holds a damaged picture.
        InputError: fewer candidates than scenes asked for, none that passes the filter, or
            numbers that make no sense.
        OutputError: the set cannot be written.
    """
    if views < 2 or min(clusters, each) < 1:
        raise InputError("a calibration needs 2 views a scene, 1 cluster and 1 scene of each")
    folder = Path(out).expanduser()
    check_writable(folder)
    if (folder / MANIFEST).exists():
        raise InputError(f"{out} holds a calibration set already; choose another folder")
    wanted = 3 * clusters * each if candidates is None else candidates
    if not folders and not recordings:
        raise InputError("nothing to calibrate with: give folders of pictures, or a dataset")
    pool, skipped = find_candidates(folders, views, wanted, seed, recordings)
    if len(pool) < clusters * each:
        raise InputError(
            f"{len(pool)} candidates for {clusters} x {each} scenes: give more pictures, or fewer "
            "--clusters"
        )
    patch = model.config.patch_size
    identity = identity_of(model)[:16]

    def read(candidate: Candidate) -> Any:
        return read_views(list(candidate.files), size=size, patch=patch)

    device = next(model.parameters()).device
    statistics = []
    for candidate in tqdm(
        pool, desc="calibrate", unit="scene", delay=2, leave=False, disable=not progress
    ):
        name = hashlib.sha256(f"{identity} {size} {candidate}".encode()).hexdigest()[:24]
        path = folder / CANDIDATES / f"{name}.json"
        known = _known(path)
        if known is None:
            known = scene_statistics(model, to_tensor(read(candidate), device))
            with replacing(path) as temporary:
                temporary.write_text(json.dumps([part.tolist() for part in known]))
        statistics.append(known)
    groups = [candidate.group for candidate in pool]
    sample = choose(statistics, groups, clusters, each, seed, whisker)
    scenes = []
    for number, index in enumerate(sample.chosen):
        entry = write_scene(folder, number, read(pool[index]))
        scenes.append({"candidate": index, "cluster": int(sample.cluster[index]), **entry})
    manifest = {
        "settings": {
            "views": views, "clusters": clusters, "each": each, "size": size,
            "candidates": len(pool),
            "seed": seed, "whisker": whisker, "network": identity,
        },
        "removed": int((~sample.kept).sum()),
        "skipped": skipped,
        "largest": {
            path: {"patch": float(f"{patches:.4g}"), "special": float(f"{others:.4g}")}
            for path, (patches, others) in zip(
                observed(model.config.depth),
                np.max([one.peaks for one in statistics], axis=0).tolist(),
                strict=True,
            )
        },
        "missing": clusters * each - len(sample.chosen),
        "candidates": [
            {
                "group": candidate.group,
                "sequence": candidate.sequence,
                "files": list(candidate.files),
                "kept": bool(sample.kept[i]),
                "cluster": int(sample.cluster[i]),
                "moments": [round(x, 6) for x in statistics[i].moments.tolist()],
                "similarity": [round(x, 6) for x in statistics[i].similarity.tolist()],
            }
            for i, candidate in enumerate(pool)
        ],
        "scenes": scenes,
    }  # fmt: skip
    write_manifest(folder, manifest)
    shutil.rmtree(folder / CANDIDATES)
    return manifest


def _known(path: Path) -> SceneStatistics | None:
    try:
        moments, similarity, peaks = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return SceneStatistics(np.array(moments), np.array(similarity), np.array(peaks))
