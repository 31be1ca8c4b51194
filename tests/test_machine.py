"""What the computer does best: threads that are measured, a pace, random states of this process's GPU, precision."""

import os
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from picojepa import machine, pretraining


def have_cores(monkeypatch, number: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(number)), raising=False)


@pytest.fixture
def four_cores(monkeypatch):
    """A computer with four cores, no GPU, on which nobody has set the number of threads."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    have_cores(monkeypatch, 4)
    monkeypatch.setattr(machine, "device", lambda: torch.device("cpu"))


def rate_of(speeds: dict[int, float], tried: list[int]):
    """Work that is as fast as the number of threads says."""

    def rate() -> float:
        tried.append(torch.get_num_threads())
        return speeds[tried[-1]]

    return rate


# ---------------------------------------------------------------- threads


@pytest.mark.parametrize(
    ("speeds", "chosen"),
    [
        ({1: 100, 2: 180, 4: 300}, 4),
        ({1: 100, 2: 180, 4: 150}, 2),
        ({1: 100, 2: 50, 4: 6}, 1),
        ({1: 100, 2: 105, 4: 109}, 1),  # near the best, fewer are better
        ({1: 100, 2: 190, 4: 209}, 2),
        ({1: 69, 2: 100, 4: 100}, 2),
        ({1: 70, 2: 100, 4: 100}, 1),
    ],
)
def test_the_faster_number_of_threads_is_chosen_and_fewer_where_they_are_nearly_as_fast(four_cores, speeds, chosen):
    tried, before = [], torch.get_num_threads()
    found, rates = machine.best_threads(rate_of(speeds, tried))
    assert (found, rates) == (chosen, {str(count): float(speed) for count, speed in speeds.items()})
    assert tried == [1, 2, 4, 1, 2, 4]
    assert torch.get_num_threads() == before


def test_the_better_of_two_tries_counts(four_cores):
    """A number of threads is not blamed for a moment in which the machine was busy."""
    answers = iter([100, 20, 300, 10, 200, 3])
    assert machine.best_threads(lambda: next(answers)) == (4, {"1": 100.0, "2": 200.0, "4": 300.0})


@pytest.mark.parametrize(("cores", "tried"), [(1, [1]), (2, [1, 2]), (8, [1, 2, 4, 8]), (64, [1, 2, 4, 8, 16])])
def test_no_more_threads_are_tried_than_there_are_cores(four_cores, monkeypatch, cores, tried):
    have_cores(monkeypatch, cores)
    assert list(machine.best_threads(lambda: 1.0)[1]) == [str(count) for count in tried]


def test_omp_num_threads_decides(four_cores, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with machine.threads(3):  # as PyTorch does by itself at its start
        assert machine.best_threads(lambda: pytest.fail("nothing is measured")) == (3, {})


def test_on_a_gpu_nothing_is_measured(four_cores, monkeypatch):
    monkeypatch.setattr(machine, "device", lambda: torch.device("cuda"))
    assert machine.best_threads(lambda: pytest.fail("nothing is measured")) == (torch.get_num_threads(), {})


def test_the_number_of_threads_is_given_back_also_after_an_error(four_cores):
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), machine.threads(before + 1):
        1 / (torch.get_num_threads() - before - 1)
    assert torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError):
        machine.best_threads(lambda: 1 / 0)
    assert torch.get_num_threads() == before


# ---------------------------------------------------------------- pace


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless work takes time."""
    found = SimpleNamespace(now=0.0)
    monkeypatch.setattr(machine, "time", SimpleNamespace(perf_counter=lambda: found.now))
    return found


def items(clock, count: int = 10**9):
    """Items of half a second each; the first one takes 100."""
    for number in range(count):
        clock.now += 0.5 if number else 100
        yield number


def test_pace_is_items_a_second_without_the_first_and_ends_in_time(clock):
    assert machine.pace(items(clock), seconds=3.2) == pytest.approx(2)
    assert clock.now == pytest.approx(103.5), "no more work than the time that is given"


def test_work_that_is_over_before_has_a_pace_too(clock):
    assert [machine.pace(items(clock, count), seconds=100) > 0 for count in (1, 5)] == [False, True]


# ---------------------------------------------------------------- random numbers


def test_a_seed_gives_the_same_numbers_and_the_outer_state_is_given_back():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    drawn = []
    for seed in (0, 0, 1):
        with machine.seeded(seed):
            drawn.append(torch.rand(3))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    with pytest.raises(RuntimeError), machine.seeded(0):
        torch.rand(3).view(2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("gpus", "own"), [(1, 0), (2, 1), (8, 5)])
def test_with_several_gpus_only_the_state_of_this_process_is_kept(monkeypatch, gpus, own):
    """PyTorch warns if it has to keep the states of all of several GPUs because nobody said which."""
    asked = []

    @contextmanager
    def fork(devices=None):
        asked.append(devices)
        yield

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: own)
    monkeypatch.setattr(torch.random, "fork_rng", fork)
    monkeypatch.setattr(torch, "manual_seed", lambda seed: None)
    with machine.seeded(0):
        assert asked == [[own]]


def test_without_a_gpu_only_the_state_of_the_cpu_is_kept(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: pytest.fail("there is none"))
    with machine.seeded(0):
        pass


# ---------------------------------------------------------------- precision


@pytest.mark.parametrize("fast", [True, False])
def test_bfloat16_only_where_it_is_asked_for_and_fast(monkeypatch, fast):
    monkeypatch.setattr(machine, "fast_bfloat16", lambda: fast)
    where, weight = machine.device(), torch.ones(4, 4).to(machine.device())
    with machine.autocast("bfloat16"):
        assert torch.is_autocast_enabled(where.type) is fast
        assert (weight @ weight).dtype is (torch.bfloat16 if fast else torch.float32)
    with machine.autocast("float32"):
        assert not torch.is_autocast_enabled(where.type)
        assert (weight @ weight).dtype is torch.float32


# ---------------------------------------------------------------- processes


def test_a_process_alone_has_the_whole_batch_and_the_say():
    assert (machine.rank(), machine.processes()) == (0, 1)
    assert machine.share_of(32) == slice(0, 32)
    assert machine.agree("this") == "this"
    assert machine.mean_over_processes(torch.tensor([1.0, 3.0])).tolist() == [1.0, 3.0]


def test_shares_of_several_processes_make_up_the_batch(monkeypatch):
    monkeypatch.setattr(machine, "processes", lambda: 4)
    clips = []
    for rank in range(4):
        monkeypatch.setattr(machine, "rank", lambda rank=rank: rank)
        clips += range(32)[machine.share_of(32)]
    assert clips == list(range(32))
    with pytest.raises(
        ValueError, match="a batch of 30 clips does not divide among 4 processes; change training.batch"
    ):
        machine.share_of(30)


# ---------------------------------------------------------------- in a run


@pytest.mark.parametrize(("steps", "measured"), [(49, False), (50, True)])
def test_long_runs_measure_their_own_steps(four_cores, monkeypatch, tiny, noise, steps, measured):
    asked = []
    have_cores(monkeypatch, 2)
    monkeypatch.setattr(machine, "pace", lambda work: asked.append(next(work)[0]) or 5.0)
    settings = replace(tiny, training=replace(tiny.training, clips=16 * steps))
    found, rates = pretraining.chosen_threads(settings, noise)
    assert rates == ({"1": 80.0, "2": 80.0} if measured else {}), "5 steps of 16 clips a second"
    assert asked == [0] * 4 * measured
    assert found == (1 if measured else torch.get_num_threads())
