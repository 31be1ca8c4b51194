"""The planted faults of `make mutants` still fit the sources: each is found once and gives other code."""

import ast

import pytest
from conftest import ROOT

from tools.mutants import MUTANTS, Mutant, read_mutants


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.fault)
def test_a_fault_can_be_planted(mutant):
    source = (ROOT / mutant.path).read_text()
    assert ast.dump(ast.parse(mutant.mutate(source))) != ast.dump(ast.parse(source))
    for name in mutant.tests:
        assert (ROOT / "tests" / f"test_{name}.py").is_file()


@pytest.mark.parametrize("source", ["nothing of the kind", "F.l1_loss(F.l1_loss("])
def test_a_text_that_is_not_there_once_is_refused(source):
    mutant = Mutant("squared error", "pretraining", ("pretraining",), "F.l1_loss(", "F.mse_loss(")
    with pytest.raises(ValueError, match="squared error: the text is found [02] times in pretraining.py"):
        mutant.mutate(source)


@pytest.mark.parametrize(("module", "path"), [("masking", "picojepa/masking.py"), ("standin/plan", "standin/plan.py")])
def test_a_module_without_a_folder_is_the_packages(module, path):
    (mutant,) = read_mutants(f"Faults.\n\na fault [{module}: standin]\n- old\n+ new")
    assert mutant == Mutant("a fault", module, ("standin",), "old", "new")
    assert mutant.path == path


def test_faults_have_names_of_their_own():
    assert len({mutant.fault for mutant in MUTANTS}) == len(MUTANTS) >= 12
