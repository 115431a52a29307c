"""Random numbers that depend on the key and the example alone."""

from __future__ import annotations

import torch

from actkit.noise import Noise, seed_for


def test_an_examples_numbers_do_not_depend_on_its_neighbours_or_their_order():
    alone = torch.cat([Noise(torch.tensor([i]), 5).uniform(3) for i in range(8)])
    order = torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
    assert Noise(torch.arange(8), 5).uniform(3).equal(alone)
    assert Noise(order, 5).uniform(3).equal(alone[order])
    assert Noise(torch.arange(8), 5)[order].uniform(3).equal(alone[order])


def test_other_keys_forks_and_draws_give_other_numbers():
    noise = Noise(torch.arange(4), 5)
    drawn = [
        noise.uniform(2),
        noise.uniform(2),
        noise.fork(1).uniform(2),
        noise.fork(2).uniform(2),
        Noise(torch.arange(4), 6).uniform(2),
    ]
    assert len({tuple(d.flatten().tolist()) for d in drawn}) == len(drawn)


def test_the_global_generator_is_not_touched():
    before = torch.get_rng_state()
    Noise(torch.arange(4), 5).normal(2)
    assert torch.get_rng_state().equal(before)


def test_distributions_have_their_moments():
    noise = Noise(torch.arange(4000), 1)
    uniform, normal = noise.uniform(50, low=-2.0, high=2.0), noise.normal(50)
    assert uniform.abs().max() < 2
    assert abs(uniform.mean()) < 0.02
    assert abs(uniform.var() - 16 / 12) < 0.02
    assert abs(normal.mean()) < 0.02
    assert abs(normal.std() - 1) < 0.01
    assert abs((normal**4).mean() - 3) < 0.1  # a Gaussian's kurtosis
    counts = torch.bincount(noise.integers(10, 50).flatten(), minlength=10) / 200_000
    assert (counts - 0.1).abs().max() < 0.005


def test_the_extreme_bits_give_finite_numbers_inside_the_interval(monkeypatch):
    for bits in (0, (1 << 24) - 1):
        monkeypatch.setattr(Noise, "_bits", lambda self, shape, bits=bits: torch.full((1, *shape), bits))
        noise = Noise(torch.arange(1), 0)
        assert -1 < noise.uniform(1, low=-1.0, high=1.0).item() < 1
        assert noise.normal(1).isfinite().all()


def test_neighbouring_examples_and_places_are_uncorrelated():
    u = Noise(torch.arange(20_000), 2).uniform(2)
    assert abs(torch.corrcoef(u.T)[0, 1]) < 0.03
    assert abs(torch.corrcoef(torch.stack([u[:-1, 0], u[1:, 0]]))[0, 1]) < 0.03


def test_a_seed_for_torch_depends_on_every_part_of_its_key():
    drawn = {
        torch.rand(1, generator=torch.Generator().manual_seed(seed_for(*key))).item()
        for key in [(0, 0), (0, 1), (1, 0), (1, 1), (1 << 40, 0)]
    }
    assert len(drawn) == 5
