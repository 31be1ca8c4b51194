"""Break the package on purpose, one fault at a time, and show that the tests notice: ``make mutants``.

The faults are listed in tools/mutants.txt. Each is planted in a temporary copy of the project, and the tests
that should notice run against the copy; before that they must pass on an unbroken one. Words on the
command line choose the faults whose description holds them. Exit code 1 if a fault survives.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("picojepa", "footage", "standin", "evidence", "book/figures", "tests", "tools", "data", "pyproject.toml")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "cache", ".*")


@dataclass(frozen=True)
class Mutant:
    """One fault: what it is, where, the text before and after, and the test files that should notice.

    A module's name is that of a file of the package, such as ``masking``, or has the folder, as in ``standin/plan``.
    """

    fault: str
    module: str
    tests: tuple[str, ...]
    old: str
    new: str

    @property
    def path(self) -> str:
        """The file, in the project's folder."""
        return f"{self.module}.py" if "/" in self.module else f"picojepa/{self.module}.py"

    def mutate(self, source: str) -> str:
        """The broken source; the text to replace must be there exactly once."""
        if (found := source.count(self.old)) != 1:
            raise ValueError(f"{self.fault}: the text is found {found} times in {self.module}.py: {self.old!r}")
        return source.replace(self.old, self.new)


def read_mutants(text: str) -> list[Mutant]:
    """The faults of a list in the form of mutants.txt."""
    mutants = []
    for block in text.strip().split("\n\n")[1:]:  # the first paragraph explains
        head, *lines = block.split("\n")
        fault, module, tests = re.fullmatch(r"(.+) \[([\w/]+)(?:: (.+))?\]", head).groups()
        old, new = ("\n".join(line[2:] for line in lines if line.startswith(sign)) for sign in ("- ", "+ "))
        mutants.append(Mutant(fault, module, tuple((tests or module).split()), old, new))
    return mutants


MUTANTS = read_mutants((ROOT / "tools" / "mutants.txt").read_text(encoding="utf-8"))


def copy_project(project: Path, folder: Path) -> None:
    """Copy what the tests need."""
    for name in COPIED:
        if (project / name).is_dir():
            shutil.copytree(project / name, folder / name, ignore=LEFT_OUT)
        else:
            shutil.copy(project / name, folder / name)


def run_tests(project: Path, tests: tuple[str, ...], change: Mutant | None = None) -> tuple[int, str]:
    """Run test files against a copy, broken if asked, until the first failure; return pytest's exit code and output."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy_project(project, Path(folder))
        if change:
            path = Path(folder) / change.path
            path.write_text(change.mutate(path.read_text(encoding="utf-8")), encoding="utf-8")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PICOJEPA_")}
        environment |= {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        check = f"import sys, picojepa; sys.exit(picojepa.__file__ != {folder + '/picojepa/__init__.py'!r})"
        subprocess.run([sys.executable, "-c", check], env=environment, cwd=folder, check=True)  # the copy is tested
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider"]
        command += [f"tests/test_{name}.py" for name in tests]
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def trial(project: Path, change: Mutant) -> tuple[Mutant, bool, str]:
    """Whether a fault is noticed, and by which test."""
    code, output = run_tests(project, change.tests, change)
    failed = re.search(r"^(?:FAILED|ERROR) tests/(\S+)", output, re.MULTILINE)
    return change, code == 1 and failed is not None, failed[1] if failed else f"pytest's exit code is {code}"


def try_all(project: Path, chosen: list[Mutant]) -> int:
    """Run the mutants of a project and print one line for each; 1 if one survives, 2 if the tests fail without."""
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        files = sorted({(name,) for change in chosen for name in change.tests})
        for code, output in pool.map(partial(run_tests, project), files):
            if code:
                print(output[-2000:], "The tests fail without any fault: mend that first.", sep="\n")
                return 2
        survivors = 0
        for change, caught, by in pool.map(partial(trial, project), chosen):
            survivors += not caught
            print(f"{'caught  ' if caught else 'SURVIVED'}  {change.fault:38}  {by}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} faults are caught.")
    return int(survivors > 0)


def main() -> int:
    """Try the faults on the project as it is now: whoever edits meanwhile changes no verdict."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy_project(ROOT, Path(folder))
        return try_all(Path(folder), [m for m in MUTANTS if " ".join(sys.argv[1:]) in m.fault])


if __name__ == "__main__":
    sys.exit(main())
