"""The theorems hold, and they are able to fail: each known fault of a shipped sampler is caught."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
import torch

from pellucid import paths, samplers
from pellucid.explain.verify import Row, proofs, prove, statements, verify
from pellucid.explain.verify.laws import tends, variance_bias, weak_order_of_a_mixture
from pellucid.explain.verify.orders import Problem, fine, quantiles
from pellucid.explain.verify.theorem import (
    THEOREMS,
    TRIALS,
    all_samplers,
    at_least,
    at_most,
    mixture,
    near,
    one_of_each_kind,
    worst,
)
from pellucid.paths import Path
from pellucid.samplers import Ancestral, Multistep, Sampler
from pellucid.types import Times

QUICK = [name for name, check in THEOREMS.items() if check.__module__.endswith("equation")] + ["one step many names"]


@pytest.mark.parametrize("name", QUICK)
def test_theorem(name: str) -> None:
    holds(prove(name))


def holds(rows: Iterator[Row]) -> None:
    found = list(rows)
    assert found and all(row.holds for row in found), [row for row in found if not row.holds]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*THEOREMS, *TRIALS} - {*QUICK}))
def test_long_theorem(name: str) -> None:
    holds(prove(name))


@pytest.mark.soak
@pytest.mark.parametrize("name", sorted(TRIALS))
def test_of_every_sampler(name: str) -> None:
    holds(prove(name, all_samplers()))


@pytest.mark.soak
def test_weak_orders_on_a_mixture() -> None:
    holds(weak_order_of_a_mixture())


def test_every_theorem_states_itself() -> None:
    assert set(statements()) == {*THEOREMS, *TRIALS}
    assert all(statement.endswith(".") and len(statement) < 120 for statement in statements().values())


def test_rows_are_plain_data_and_progress_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pellucid.explain.verify.THEOREMS", {"path ends": THEOREMS["path ends"]})
    monkeypatch.setattr("pellucid.explain.verify.TRIALS", {"strangers": TRIALS["strangers"]})
    heard, chosen = list[tuple[int, int, str]](), {"one": samplers.registry.make("ddim")}
    rows = verify(lambda *progress: heard.append(progress), chosen)
    assert heard == [(0, 2, "path ends"), (1, 2, "strangers: one"), (2, 2, "")]
    assert [row.theorem for row in rows if row.subject == "one"] == ["strangers"]
    assert {row.theorem for row in rows} == {"path ends", "strangers"}
    assert Row(*json.loads(json.dumps(rows[0]))) == rows[0] and isinstance(rows[0].measured, float)


def test_one_of_each_kind_is_measured_or_those_that_are_asked_for() -> None:
    """Every class and every form of it is among them; a sampler that is registered is a kind, or like one."""
    few, every = one_of_each_kind(), all_samplers()
    assert set(few) < set(every) and {type(s) for s in few.values()} == {type(s) for s in every.values()}
    assert {of for name, of, _ in proofs() if name in TRIALS} == set(few)
    assert {of for name, of, _ in proofs(every) if name in TRIALS} == set(every)
    assert [of for name, of, _ in proofs({}) if name in TRIALS] == []


def test_a_bound_is_kept_or_missed_and_nan_keeps_none() -> None:
    assert at_most("", 1.0, 1.0).holds and not at_most("", 1.1, 1.0).holds
    assert at_least("", 1.0, 1.0).holds and not at_least("", 0.9, 1.0).holds
    assert near("", 2.1, 2, 0.15).holds and not near("", 2.2, 2, 0.15).holds and not near("", 1.8, 2, 0.15).holds
    assert not any(row.holds for row in (at_most("", math.nan, 1), at_least("", math.nan, 1), near("", math.nan, 1, 1)))
    where, value = worst([("a", 1.0), ("b", math.nan), ("c", 2.0)])
    assert where == " (worst: b)" and math.isnan(value) and worst([("a", 0.0)]) == ("", 0.0)


# To register is to be verified


@pytest.fixture
def registered() -> Iterator[None]:
    @paths.registry.register("crooked")
    @dataclass(frozen=True)
    class Crooked(paths.Flow):
        def time(self, lam: Times) -> Times:
            return torch.sigmoid(-1.001 * lam)

        def rates(self, t: Times) -> tuple[Times, Times]:
            return -torch.ones_like(t), 1.01 * torch.ones_like(t)

    yield
    del paths.registry.classes["crooked"], paths.registry.aliases["crooked"]


@pytest.mark.parametrize("name", ["path inverse", "path rates", "weight identities", "repath"])
def test_a_new_path_is_verified_and_its_faults_are_named(name: str, registered: None) -> None:
    missed = [row.subject for row in prove(name) if not row.holds]
    assert missed and all("crooked" in subject for subject in missed)


# Faults that have been shipped


class HalvedQuadratic(Multistep):
    """The 3M of two well-known libraries: the quadratic term without its factor 2."""

    def slants(self, path: Path, t: Times, s: Times, taus: Sequence[Times]) -> Times:
        lam, (one, two) = taus[0], taus[1:]
        h, c0 = path.lam(s) - lam, -torch.expm1(lam - path.lam(s))
        r1, r2, r3 = 1 / (lam - one), 1 / (one - two), 1 / (lam - two)
        bend = (h**2 - 2 * (h - c0)) / 2
        slant = torch.stack([r3 * r1, -r3 * r1 - r3 * r2, r3 * r2])
        line = torch.stack([r1, -r1, 0 * r1])
        return path.alpha(s) * ((h - c0) * line + (bend + (lam - one) * (h - c0)) * slant)


class OldScale(Multistep):
    """x0 times alpha at the old time, not the new one."""

    def coefficients(self, path: Path, t: Times, s: Times, past: Times) -> tuple[Times, ...]:
        signal, *rest = super().coefficients(path, t, s, past)
        return signal * path.alpha(t) / path.alpha(s), *rest


class OldSigma(Multistep):
    """sigma_t where the formula has sigma_s, in the correction."""

    def slants(self, path: Path, t: Times, s: Times, taus: Sequence[Times]) -> Times:
        return super().slants(path, t, s, taus) * path.sigma(t) / path.sigma(s)


@pytest.mark.parametrize(
    "sampler, at_best", [(HalvedQuadratic(3), 2.4), (OldScale(1), 0.3), (OldScale(2), 0.3), (OldSigma(3), 2.4)]
)
def test_a_lost_order_is_noticed(sampler: Sampler, at_best: float) -> None:
    for path in (paths.Cosine(), paths.Flow()):
        problem = Problem(mixture(1).at(path), quantiles(mixture(1).at(path)))
        assert problem.slope(sampler) < at_best < sampler.order - 0.15


class LittleNoise(Ancestral):
    """sqrt(1 - kappa^2) forgotten down to 0.7 of itself."""

    def coefficients(self, path: Path, t: Times, s: Times, past: Times) -> tuple[Times, ...]:
        signal, kept, fresh = super().coefficients(path, t, s, past)
        return signal, kept, 0.7 * fresh


class WrongKappa(Multistep):
    """kappa = exp(-2 rho h) with the fresh noise of exp(-rho h)."""

    def coefficients(self, path: Path, t: Times, s: Times, past: Times) -> tuple[Times, ...]:
        signal, kept, *rest = super().coefficients(path, t, s, past)
        return signal, kept * torch.exp(self.rho * (path.lam(t) - path.lam(s))), *rest


WRONG = [LittleNoise(1.0), WrongKappa(1, rho=1.0), WrongKappa(2, rho=1.0)]


@pytest.mark.parametrize("sampler", WRONG)
def test_a_lost_law_is_noticed(sampler: Sampler) -> None:
    coarse, narrow = (abs(variance_bias(sampler, paths.Cosine(), n)) for n in (60, 180))
    assert narrow > 0.05 and narrow > coarse / 2


@pytest.mark.slow
@pytest.mark.parametrize("sampler", WRONG)
def test_a_lost_law_is_noticed_on_the_mixture(sampler: Sampler) -> None:
    assert not all(row.holds for row in tends("wrong", sampler))


def test_the_reference_is_finer_than_what_it_judges() -> None:
    oracle = mixture().at(paths.Flow())
    coarse, narrow = (Problem(oracle, fine(oracle, steps)).end for steps in (100, 200))
    assert float((coarse - narrow).abs().max()) < 1e-7
    problem = Problem(mixture(1).at(paths.Flow()), quantiles(mixture(1).at(paths.Flow())))
    gap = (problem.walk(samplers.registry.make("dpmpp-3m"), 160) - problem.end).abs().mean()
    assert gap > 1e-8
