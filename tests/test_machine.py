"""What the computer does best: the number of threads, and how it is measured."""

import os
from types import SimpleNamespace

import pytest
import torch

from picojepa import machine


@pytest.fixture
def eight_cores(monkeypatch):
    """A machine of eight cores on which nobody asked for a number of threads."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine, "cores", lambda: 8)
    monkeypatch.setattr(machine, "device", lambda: torch.device("cpu"))


def rates(numbers: dict[int, list[float]]):
    """A piece of work whose speed depends on the number of threads, and on the try."""
    left = {count: list(speeds) for count, speeds in numbers.items()}
    return lambda: left[torch.get_num_threads()].pop(0)


@pytest.mark.parametrize(
    ("numbers", "chosen"),
    [
        ({1: [10, 10], 2: [19, 19], 4: [30, 30], 8: [31, 31]}, 4),  # fewer, where they are nearly as fast
        ({1: [10, 10], 2: [8, 8], 4: [6, 6], 8: [3, 3]}, 1),  # a machine that is busy
        ({1: [10, 10], 2: [11, 1], 4: [2, 20], 8: [1, 21]}, 4),  # the better of two tries
    ],
)
def test_the_fewest_threads_that_are_nearly_the_fastest_are_chosen(eight_cores, numbers, chosen):
    before = torch.get_num_threads()
    found, measured = machine.best_threads(rates(numbers))
    assert found == chosen
    assert measured == {str(count): max(speeds) for count, speeds in numbers.items()}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("cores", "counts"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (64, [1, 2, 4, 8, 16])])
def test_which_numbers_are_tried(eight_cores, monkeypatch, cores, counts):
    monkeypatch.setattr(machine, "cores", lambda: cores)
    tried = []
    machine.best_threads(lambda: tried.append(torch.get_num_threads()) or 1.0)
    assert tried == counts * 2


@pytest.mark.parametrize("reason", ["environment", "GPU"])
def test_nothing_is_measured_where_the_number_is_given_or_does_not_matter(eight_cores, monkeypatch, reason):
    if reason == "GPU":
        monkeypatch.setattr(machine, "device", lambda: torch.device("cuda"))
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert machine.best_threads(None) == (torch.get_num_threads(), {})


def test_threads_are_given_back_after_an_error():
    before, seen = torch.get_num_threads(), []

    @machine.threads(before + 2)
    def fail():
        seen.append(torch.get_num_threads())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen == [before + 2]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("items", "seconds"), [(1000, 3.5), (5, 2.0)], ids=["endless", "soon over"])
def test_the_pace_leaves_out_the_first_item(monkeypatch, items, seconds):
    """By a clock of our own: the first item takes 100 seconds, each other one half a second."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(machine, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def work():
        for number in range(items):
            clock.now += 0.5 if number else 100
            yield number

    assert machine.pace(work(), seconds=3.2) == pytest.approx(2.0)
    assert clock.now == pytest.approx(100 + seconds), "no more work than the time that is given"


def test_the_random_state_outside_a_seeded_block_is_untouched():
    state = torch.get_rng_state()
    with machine.seeded(5):
        first = torch.rand(3)
    with machine.seeded(5):
        assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_cores_are_those_that_this_process_may_use():
    assert 1 <= machine.cores() <= (os.cpu_count() or 1)
