"""pyproject.toml, requirements.lock, environment.yml and what is installed tell the same story."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest
import yaml
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

LOCK = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
LOCKED = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in LOCK}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
WANTED = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]


def test_the_lock_names_each_package_once_with_one_version():
    assert len(LOCKED) == len(LOCK)
    wrong = [line for line in LOCK if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line)]
    assert not wrong, "no local versions (+cpu), no paths: such lines resolve on one machine only"


@pytest.mark.parametrize("line", WANTED)
def test_the_lock_satisfies_the_project(line):
    requirement = Requirement(line)
    assert LOCKED[canonicalize_name(requirement.name)] in requirement.specifier


def test_the_lock_is_what_is_installed():
    different = {}
    for name, version in LOCKED.items():
        try:
            found = metadata.version(name).split("+")[0]
        except metadata.PackageNotFoundError:
            continue  # needed on another system or Python only
        if found != version:
            different[name] = (found, version)
    assert not different, "installed and locked versions differ: rm -rf .venv; make setup"


def test_conda_gets_the_same_packages():
    (pip,) = [entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict)]
    assert pip == [*LOCK, "-e ."]
    (python,) = [entry for entry in CONDA["dependencies"] if str(entry).startswith("python=")]
    assert f"{python.removeprefix('python=')}.99" in SpecifierSet(PROJECT["requires-python"])


def test_npm_gets_pinned_packages_from_any_registry():
    asked, locked = (
        json.loads((ROOT / "tests/web" / name).read_text()) for name in ("package.json", "package-lock.json")
    )
    packages = {name.removeprefix("node_modules/"): it for name, it in locked["packages"].items() if name}
    assert {name: packages[name]["version"] for name in asked["dependencies"]} == asked["dependencies"]
    assert [name for name, it in packages.items() if "integrity" not in it or "resolved" in it] == []


def test_this_python_is_supported():
    assert ".".join(map(str, sys.version_info[:3])) in SpecifierSet(PROJECT["requires-python"])


def test_an_installed_package_imports_from_any_folder(tmp_path):
    """As after ``pip install .``: only the packages that pyproject names, nothing of the repository beside them."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    for package in setuptools["packages"]:
        shutil.copytree(ROOT / package, tmp_path / "site" / package, ignore=shutil.ignore_patterns("__pycache__"))
    script = """
import os, picojepa.pretraining, picojepa.results, evidence.ledger, standin
from footage import lists
from picojepa import store
assert not store.cache_folder().is_relative_to(os.environ["PYTHONPATH"]), store.cache_folder()
lists.paper_lists()
"""
    environment = {"PYTHONPATH": str(tmp_path / "site"), "HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "lists.csv is missing; it comes with the book's repository: work in a clone of it" in done.stderr
