"""Documents say what results/*.json say."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

HOME = Path(__file__).parent.parent


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(HOME / "benchmarks")
    return importlib.import_module("tables")


def test_tables_are_as_their_results(tables):
    behind = [p.name for p in tables.documents() if tables.filled(p.read_text()) != p.read_text()]
    assert not behind, "run python benchmarks/tables.py"


def test_every_table_stands_somewhere(tables):
    text = "".join(path.read_text() for path in tables.documents())
    assert {name for _, name, _, _ in tables.BLOCK.findall(text)} == set(tables.TABLES)


def test_what_is_between_the_marks_is_replaced(tables, monkeypatch):
    monkeypatch.setitem(tables.TABLES, "one", lambda: ["| a |", "| --- |"])
    text = "before\n<!-- table one -->\nold\n<!-- end -->\nafter\n"
    new = tables.filled(text)
    assert new == "before\n<!-- table one -->\n| a |\n| --- |\n<!-- end -->\nafter\n"
    assert tables.filled(new) == new


def test_results_name_their_command():
    for path in (HOME / "results").glob("*.json"):
        data = json.loads(path.read_text())
        assert data["command"].startswith("python ") and data["date"] and data["commit"], path.name
