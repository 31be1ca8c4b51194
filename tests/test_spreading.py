"""Terms that keep features spread: against slow references, where they are 0, and where they pull."""

import math

import pytest
import torch

from picojepa import spreading
from picojepa.machine import seeded


def cloud(n: int = 40, width: int = 5, seed: int = 0) -> torch.Tensor:
    """Features (n, D) with correlated numbers of unequal spread."""
    with seeded(seed):
        mixed = torch.randn(n, width, dtype=torch.float64) @ torch.randn(width, width, dtype=torch.float64)
    return 0.5 * mixed + 3


def test_variance_covariance_number_by_number():
    x = cloud()
    n, width = x.shape
    rows, lacking, between = x.tolist(), 0.0, 0.0
    means = [sum(row[d] for row in rows) / n for d in range(width)]
    for d in range(width):
        for e in range(width):
            shared = sum((row[d] - means[d]) * (row[e] - means[e]) for row in rows) / (n - 1)
            if d == e:
                lacking += max(0.0, 1 - math.sqrt(shared + 1e-4)) / width
            else:
                between += shared**2 / width
    assert lacking > 0.01, "a cloud that lacks nothing would test half of it"
    assert spreading.variance_covariance(x).item() == pytest.approx(lacking + 0.1 * between, rel=1e-9)


def test_sigreg_against_complex_numbers_and_a_fine_integral(monkeypatch):
    """The same statistic from the complex characteristic function, summed by hand; then with a thousand knots."""
    x = cloud().float()
    with seeded(3):
        found = spreading.sketched_gaussian(x)
    with seeded(3):
        directions = torch.randn(5, spreading.SLICES)
    along = (x @ (directions / directions.norm(dim=0))).double()

    def statistic(knots: int) -> float:
        points, gap = torch.linspace(-5, 5, knots, dtype=torch.float64), 10 / (knots - 1)
        heights = []
        for point in points:
            normal = math.exp(-(point.item() ** 2) / 2)
            empirical = torch.exp(1j * along * point).mean(0)
            heights.append((empirical - normal).abs().square() * normal)
        return ((sum(heights) - (heights[0] + heights[-1]) / 2) * gap).mean().item()

    assert found.item() == pytest.approx(statistic(spreading.KNOTS), rel=1e-4)
    assert found.item() == pytest.approx(statistic(1001), rel=0.05), "17 knots are enough"


def test_a_normal_cloud_costs_next_to_nothing_and_a_collapsed_one_much():
    with seeded(0):
        normal = torch.randn(20_000, 8)
    for name, term in spreading.TERMS.items():
        with seeded(1):
            spread, narrow, flat = (term(x).item() for x in (normal, 0.1 * normal, normal[:, :1].expand(-1, 8)))
        assert abs(spread) < 0.01, name
        assert min(narrow, flat) > 0.1, name


@pytest.mark.parametrize("name", spreading.TERMS)
def test_descending_a_term_spreads_a_narrow_cloud(name):
    x = (0.05 * cloud(200).float()).requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.03)
    with seeded(0):
        for _ in range(200):
            optimizer.zero_grad()
            spreading.TERMS[name](x).backward()
            optimizer.step()
    covariance = torch.cov(x.detach().T)
    assert covariance.diagonal().min() > 0.6
    assert (covariance - covariance.diag().diag()).abs().max() < 0.3


def test_the_loss_looks_at_clips_and_at_tokens():
    x = cloud(24).float().reshape(4, 6, 5)
    wanted = [spreading.variance_covariance(part) for part in (x.mean(1), x.reshape(24, 5))]
    torch.testing.assert_close(spreading.spread_loss("variance-covariance", x), sum(wanted))
