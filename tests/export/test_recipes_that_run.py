"""What a scheme says of its backends is what they do."""

from __future__ import annotations

import itertools

import pytest
import torch

from vggt_edge.errors import InputError
from vggt_edge.export import executorch_recipes, litert_recipes
from vggt_edge.model import backends
from vggt_edge.recipe import GROUPS, Scheme

SCHEMES = [
    Scheme(fp8=True),
    *(Scheme(8, a, None, rotated) for a, rotated in itertools.product((8, 16), (False, True))),
    *itertools.starmap(Scheme, itertools.product((4,), (4, 8, 16), (None, *GROUPS), (False, True))),
]
FIND = {"litert": litert_recipes.find_recipe, "executorch": executorch_recipes.find_recipe}


@pytest.mark.parametrize("target", FIND)
def test_no_is_what_an_export_refuses(target):
    refused = set()
    for scheme in SCHEMES:
        assert Scheme.parse(scheme.name) == scheme
        try:
            FIND[target](scheme.name)
        except InputError:
            refused.add(scheme.name)
    assert {one.name for one in SCHEMES if one.runs_on()[target] == "no"} == refused


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_simulated_is_what_expands(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    backends.choose.cache_clear()
    simulated = {s.name for s in SCHEMES if backends.simulates(s, torch.device(device))}
    backends.choose.cache_clear()
    assert {s.name for s in SCHEMES if s.runs_on()[device] == "simulated"} == simulated
