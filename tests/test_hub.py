from __future__ import annotations

import errno
import inspect

import huggingface_hub
import pytest
from huggingface_hub import errors

from vggt_edge import hub, weights
from vggt_edge.errors import CheckpointError, InputError, OfflineError, OutputError

NAME = "facebook/VGGT-1B"


class FakeHub:
    """A hub with one cache: an absent file is 'downloaded' or raises ``error``."""

    def __init__(self, folder):
        self.folder = folder
        self.cached: set[tuple[str, str]] = set()
        self.error: BaseException | None = None
        self.downloads: list[tuple[str, str]] = []

    def path(self, name, filename):
        return str(self.folder / name.replace("/", "--") / filename)

    def try_to_load_from_cache(self, name, filename):
        return self.path(name, filename) if (name, filename) in self.cached else None

    def hf_hub_download(self, name, filename):
        self.downloads.append((name, filename))
        if self.error is not None:
            raise self.error
        self.cached.add((name, filename))
        return self.path(name, filename)


@pytest.fixture
def fake(monkeypatch, tmp_path):
    fake = FakeHub(tmp_path)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", fake.try_to_load_from_cache)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fake.hf_hub_download)
    return fake


def instance(kind: type[BaseException]) -> BaseException:
    """An exception of the hub's, without the HTTP response it would be made from."""
    error = kind.__new__(kind)
    error.args = ("first line\nsecond line",)
    return error


def test_the_licence_is_shown_once(fake):
    lines: list[str] = []
    first = hub.fetch(NAME, lines.append)
    assert lines == [f"{NAME}: {hub.KNOWN[NAME].license}"]
    assert hub.fetch(NAME, lines.append) == first
    assert len(lines) == 1
    assert len(fake.downloads) == 1
    assert first.name == "model.safetensors"


def test_the_licence_goes_to_standard_error(fake, capsys):
    hub.fetch("facebook/VGGT-1B-Commercial")
    out, err = capsys.readouterr()
    assert out == ""
    assert "no military use" in err
    assert err.count("\n") == 1
    assert fake.downloads == [("facebook/VGGT-1B-Commercial", "vggt_1B_commercial.pt")]


def test_other_names_are_taken_for_safetensors(fake):
    lines: list[str] = []
    hub.fetch("someone/small-vggt", lines.append)
    assert fake.downloads == [("someone/small-vggt", "model.safetensors")]
    assert "the page of someone/small-vggt" in lines[0]


TRANSPORT = errors.HfHubHTTPError.__bases__[0]


@pytest.mark.parametrize(
    ("cause", "kind", "way_out"),
    [
        (instance(errors.GatedRepoError), CheckpointError, "hf auth login"),
        (instance(errors.RepositoryNotFoundError), CheckpointError, "has no model.safetensors"),
        (instance(errors.EntryNotFoundError), CheckpointError, "has no model.safetensors"),
        (instance(errors.LocalEntryNotFoundError), OfflineError, "give its path"),
        (instance(errors.HfHubHTTPError), OfflineError, "give its path"),
        (instance(errors.OfflineModeIsEnabled), OfflineError, "'pocket'"),
        (instance(TRANSPORT), OfflineError, "'pocket'"),
        (ConnectionError("refused"), OfflineError, "'pocket'"),
        (TimeoutError(), OfflineError, "'pocket'"),
        (OSError(errno.ENOSPC, "No space left on device"), OutputError, "HF_HOME"),
        (PermissionError(errno.EACCES, "Permission denied"), OutputError, "HF_HOME"),
    ],
    ids=lambda value: getattr(type(value), "__name__", None),
)
def test_failures_are_one_line_with_a_way_out(fake, cause, kind, way_out):
    fake.error = cause
    with pytest.raises(kind) as caught:
        hub.fetch(NAME, lambda line: None)
    message = str(caught.value)
    assert type(caught.value) is kind
    assert message.startswith(f"{NAME}: ")
    assert way_out in message
    assert message.isprintable()
    assert caught.value.__cause__ is cause


def test_bugs_are_not_swallowed(fake):
    fake.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        hub.fetch(NAME, lambda line: None)


@pytest.mark.parametrize("name", ["a b/c d", "-/x", "a/b..c", "own\ner/name"])
def test_names_no_hub_has(name):
    """The real functions, which refuse the name before any network."""
    with pytest.raises(CheckpointError) as caught:
        hub.fetch(name, lambda line: None)
    assert NAME in str(caught.value)
    assert str(caught.value).isprintable()


def test_load_fetches_a_hub_name(fake, tmp_path):
    fake.error = instance(errors.LocalEntryNotFoundError)
    lines: list[str] = []
    with pytest.raises(OfflineError):
        weights.load(NAME, notify=lines.append)
    assert lines == [f"{NAME}: {hub.KNOWN[NAME].license}"]
    fake.error = None
    # "Downloaded", and then not there: the path is what load goes on with.
    with pytest.raises(InputError, match="no such file"):
        weights.load(NAME, notify=lines.append)


def test_the_fakes_have_the_signatures_of_the_real_ones():
    for name in ("try_to_load_from_cache", "hf_hub_download"):
        real = list(inspect.signature(getattr(huggingface_hub, name)).parameters)
        assert real[:2] == ["repo_id", "filename"]
