"""Keys hold: the same name for the same inputs on any Python, and for what was recorded long ago."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from picojepa import pretraining, store
from picojepa.config import PROFILES, RECIPES, settings
from picojepa.published import PublishedJEPA
from picojepa.store import Stage


def test_digest_depends_on_values_not_on_order():
    assert store.digest({"a": 1, "b": (2, 3)}) == store.digest({"b": [2, 3], "a": 1})
    assert store.digest({"a": 1}) != store.digest({"a": 2})


def test_a_recorded_key_does_not_change():
    """Whoever changes how keys are made orphans every result there is."""
    inputs = {
        "x": 1,
        "share": 0.1,
        "pair": (1e-6, 2.0),
        "nothing": None,
        "yes": True,
        "words": "Grüße",
        "deep": {"a": []},
    }
    assert store.name_of(Stage("masking.test", 3), inputs) == "masking.test-dca815fd7f91a8d3"


def other_pythons() -> dict[str, str]:
    """Supported Pythons beside this one, by version: on the PATH, of pyenv, and what ``PICOJEPA_PYTHONS`` names."""
    names = [f"python3.{minor}" for minor in (11, 12, 13)]
    paths = [*filter(None, map(shutil.which, names)), *filter(None, os.environ.get("PICOJEPA_PYTHONS", "").split(":"))]
    if shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True).stdout.strip()
        paths += [str(path) for name in names for path in Path(root).glob(f"versions/*/bin/{name}")]
    found = {}
    for path in paths:
        asked = subprocess.run([path, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True)
        if asked.returncode == 0:  # not a shim that leads nowhere
            found[asked.stdout.strip()] = path
    found.pop(f"{sys.version_info[0]} {sys.version_info[1]}", None)
    return found


KEYS = """
import importlib.util, json, sys

sys.path.append(sys.argv[1])
spec = importlib.util.spec_from_file_location("store", sys.argv[2])
store = sys.modules["store"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(store)
asked = json.load(sys.stdin)
print(json.dumps([store.name_of(store.Stage(*asked["stage"]), inputs) for inputs in asked["inputs"]]))
"""


def test_keys_are_the_same_on_every_python(noise):
    """`store` by itself, with nothing but filelock: whatever the key of a run is made of, each Python gives it."""
    pythons = other_pythons()
    if not pythons:
        pytest.skip("there is no other Python here; name some in PICOJEPA_PYTHONS, with colons between")
    inputs = [pretraining.training_inputs(settings(p, r), noise) for p in PROFILES for r in RECIPES]
    inputs += [pretraining.training_inputs(settings("laptop"), noise, 500, PublishedJEPA)]
    wanted = [store.name_of(pretraining.RUN, given) for given in inputs]
    assert len(set(wanted)) == len(inputs) == 10
    asked = json.dumps({"stage": [pretraining.RUN.name, pretraining.RUN.version], "inputs": inputs})
    site = str(Path(importlib.util.find_spec("filelock").origin).parents[1])
    for version, python in pythons.items():
        command = [python, "-S", "-c", KEYS, site, store.__file__]
        said = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=120)
        assert said.returncode == 0, f"Python {version}: {said.stderr}"
        assert json.loads(said.stdout) == wanted, f"Python {version}"


def test_a_setting_that_is_added_later_leaves_old_keys_until_it_is_used():
    """A field with ``metadata={"added": True}`` is part of the key only when it is not at its default."""

    @dataclass(frozen=True)
    class Inner:
        old: int = 1
        new: float = field(default=0.0, metadata={"added": True})

    @dataclass(frozen=True)
    class Outer:
        inner: Inner = field(default_factory=Inner)

    assert store.plain(Outer()) == {"inner": {"old": 1}}
    assert store.plain(Outer(Inner(new=0.5))) == {"inner": {"old": 1, "new": 0.5}}
