"""Mutants: is the mathematical core tested? Each flips one token of it; the tests must notice.   make mutants

Every mutant is applied to a copy of the sources, and the quick tests of its file run until one fails: killed. Those
that live show what no test looks at. Prints a table; exits with 1 if fewer than 95 % are killed.
`tests/mutants.py multistep` tries those of one file.
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import TimeoutError, get_context
from multiprocessing.pool import AsyncResult
from pathlib import Path
from typing import NamedTuple

import pytest
import torch as torch  # imported once, for all the processes forked from this one

HOUSE = Path(__file__).parents[1]
ENOUGH = 0.95
PATIENCE = 180  # seconds until an endless mutant counts as noticed

# file: (the tests that look at it, the flips). A flip is "before ⟦old→new⟧ after", where before + old + after is
# found once in the file.
MUTANTS: dict[str, tuple[str, list[str]]] = {
    "paths/base.py": (
        "test_paths.py",
        [
            "self.alpha(t).log() ⟦-→+⟧ self.sigma(t).log()",
            "slope(self.alpha, t), slope(self.⟦sigma→alpha⟧, t)",
            "along(self.alpha(t), x0) * x0 ⟦+→-⟧ along",
            "along(self.⟦sigma→alpha⟧(t), x0) * eps",
            "self.alpha(t) / self.alpha(⟦s→t⟧), self.sigma",
            "-torch.expm1(⟦2→3⟧ * (self.lam(t)",
            "(self.lam(t) ⟦-→+⟧ self.lam(s))",
            "new.time(old.lam(t))⟦.clamp(max=1)→⟧",
            "torch.hypot(new.alpha(t_new), new.sigma(⟦t_new→t⟧))",
        ],
    ),
    "paths/preserving.py": (
        "test_paths.py",
        [
            "torch.exp(-self.integral(t) / ⟦2→3⟧)\n\n    def sigma(self, t: Times) -> Times:\n        return (",
            "(-torch.⟦expm1→exp⟧(-self.integral(t))).sqrt()",
            "softplus(⟦-2→-1⟧ * lam, threshold=700)",
            "self.beta_min * t + (self.beta_max ⟦-→+⟧ self.beta_min) * t**2",
            "2 * (self.beta_max - self.beta_min) * per).sqrt()\n        return ⟦2→1⟧ /",
            "root = ((self.beta_min * per) ** 2 + ⟦2→4⟧ *",
            "t * (a * a + a * d * t + d * d * t**2 / ⟦3→2⟧)",
            "torch.expm1(torch.log1p(⟦3→2⟧ * d * integral / a**3) / 3)",
            "return -torch.expm1(-self.⟦integral→alpha⟧(t))",
            "self.time_at(2 * torch.⟦asinh→sinh⟧(torch.exp(-lam) / 2))",
        ],
    ),
    "paths/cosine.py": (
        "test_paths.py",
        [
            '0 = u(0) (Nichol & Dhariwal 2021, eq. 17); alpha(1) = 0."""\n\n    s: Offset = 0.00⟦8→9⟧',
            "return self.s ⟦*→+⟧ self._rise",
            "math.pi / 2 / (1 ⟦+→-⟧ self.s)",
            "torch.sin(gone + ⟦2→1⟧ * self._u0)",
            "torch.sigmoid(-2 * lam) * c0**2, torch.sigmoid(⟦2→-2⟧ * lam)",
            "torch.where(lam ⟦>→<⟧ 0, gone / self._rise",
            "torch.sinh(rise / 2) / (2 * torch.cosh(low / 2) * torch.cosh((low ⟦+→-⟧ rise) / 2))",
            "dtype=torch.float⟦64→32⟧) / self.tau",
            "left = torch.log1p(down / (1 - ⟦q→p⟧))",
        ],
    ),
    "paths/exploding.py": (
        "test_paths.py",
        [
            "self.sigma_min * torch.expm1(self._growth * t)⟦.sqrt()→⟧",
            "torch.log1p(torch.exp(⟦-2→-1⟧ * lam) / self.sigma_min**2)",
            "torch.exp((-lam ⟦-→+⟧ math.log(self.sigma_max)) / self.rho)",
        ],
    ),
    "paths/flow.py": (
        "test_paths.py",
        [
            "return ⟦1 - t→1 - t**2⟧",
            "return torch.sigmoid(⟦-lam→lam⟧)",
            "return ⟦-torch→torch⟧.ones_like(t), torch.ones_like(t)",
        ],
    ),
    "paths/table.py": (
        "test_paths.py",
        [
            "_angles[i] ⟦+→-⟧ self._turns[i] * (place - i)",
            "self._turns[i] * (place ⟦- i→⟧)",
            "torch.sin(math.pi / 2 ⟦-→+⟧ self._angle(t))",
            "torch.sin(math.pi / 2 ⟦-→+⟧ angle).log()",
            "torch.atan2(torch.ones_like(lam), torch.exp(⟦lam→-lam⟧))",
            "right=True) ⟦-→+⟧ 1).clamp(0, self.n - 1)",
            "self.steps, dtype=torch.float64) ** self.⟦power→last⟧",
            "(1 - survival[1:] / survival[⟦:-1→1:⟧]).clamp",
        ],
    ),
    "paths/clock.py": (
        "test_paths.py",
        [
            "self.base.lam(safe) ⟦-→+⟧ math.log(self.shift)",
            "self.base.time(lam ⟦+→-⟧ math.log(self.shift))",
            "stretch = self.shift * spread / (base.alpha(t) ** 2 ⟦+→-⟧",
            "speed = stretch * self._turn(⟦t→u⟧) / self._turn(u)",
        ],
    ),
    "predictions.py": (
        "test_predictions.py",
        [
            "path.sigma(t) / (path.alpha(t) * b ⟦-→+⟧ path.sigma(t) * a)",
            "return ⟦-path→path⟧.sigma(t), path.alpha(t)",
            "return -path.sigma(t), path.⟦alpha→sigma⟧(t)",
            "torch.zeros_like(t), ⟦-1→1⟧ / path.sigma(t)",
            "torch.zeros_like(t), -1 / path.⟦sigma→alpha⟧(t)",
            "root = torch.hypot(alpha * self.sd, ⟦sigma→alpha⟧)",
            "sigma / (self.sd * root), ⟦-alpha→alpha⟧ * self.sd / root",
            "det = alpha * b ⟦-→+⟧ sigma * a",
            "torch.stack([b / det, ⟦-sigma→sigma⟧ / det",
            "-⟦a→b⟧ / det, alpha / det])",
            "torch.where(alpha > 0, zero, 1 / ⟦sigma→alpha⟧), zero])",
            "rows.isfinite().⟦all→any⟧(0)",
            "Denoised(p * x + q * y, r * x ⟦+→-⟧ s * y)",
        ],
    ),
    "grids/base.py": (
        "test_grids.py",
        ["steps < ⟦1→0⟧", "(times.diff() ⟦<→<=⟧ 0).all()"],
    ),
    "grids/times.py": (
        "test_grids.py",
        [
            "torch.linspace(1, 0, steps + ⟦1→2⟧, dtype=torch.float64)[:-1]",
            "torch.sigmoid(torch.where(low, y, ⟦-y→y⟧))",
            "tail = torch.where(low, share, ⟦1 - share→share⟧)",
            "(a ⟦+→-⟧ b + n) / (a + 1 + n)",
            "return torch.where(left, mass, ⟦1 - mass→mass⟧)",
            "return self.shift * t / (1 + (self.shift ⟦-→+⟧ 1) * t)",
            "/ (steps - m)) ** ⟦2→3⟧",
            "(1 - slope ⟦*→+⟧ steps)",
            "all(⟦1→2⟧ >= t > s for",
        ],
    ),
    "grids/levels.py": (
        "test_grids.py",
        [
            "torch.exp(⟦-path→path⟧.lam(torch.ones",
            "path.time(⟦-sigmas→sigmas⟧.log())",
            "sigma ** (⟦1→2⟧ / self.rho) for",
            "(high + ramp * (low ⟦-→+⟧ high)) ** self.rho)",
            "torch.exp(low + ramp * (⟦high - low→high⟧))",
            "torch.tan(high + ramp * (low ⟦-→+⟧ high))",
            "beyond + (1 ⟦-→+⟧ beyond) * torch.arange",
            "torch.exp(⟦-→⟧self.mean - self.scale * quantile(share))",
            "(-end(path).log() ⟦-→+⟧ self.mean) / self.scale",
        ],
    ),
    "grids/indices.py": (
        "test_grids.py",
        [
            "(self.indices(steps + self.skip)[:steps] ⟦+ 1→⟧) / self.n",
            "stride = (self.n ⟦- 1→⟧) / max(steps - 1, 1)",
            "(self.n ⟦//→/⟧ steps)).flip(0) + self.offset",
            "* stride).round() ⟦- 1→⟧\n",
        ],
    ),
    "samplers/diffusers.py": (
        "test_diffusers.py",
        [
            "bar[-1] = 2**⟦-24→-23⟧",
            "* root[0] ⟦/→*⟧ (root[0] - root[-1])",
            '"high": 1 ⟦- 1 / _n(config)→⟧}',
            '{"name": "uniform", "low": ⟦1→2⟧ / _n(config)})',
            '_whole(config, "linspace", ⟦1→0⟧)',
            "[[⟦200→201⟧, 800]]",
            "shift * first / (1 ⟦+→-⟧ (shift - 1) * first)",
        ],
    ),
    "fitting/programme.py": (
        "test_tune.py",
        [
            "costs.begin[:, None] ⟦+→-⟧ costs.first",
            "best, i = total[:, ⟦-1→0⟧].min(0)",
            "j, before = nodes[-1], int(choice[nodes[-1], ⟦j→0⟧])",
        ],
    ),
    "fitting/local.py": (
        "test_tune.py",
        [
            "x[:, k], x[:, k + 1] = self.path.⟦alpha→sigma⟧(t), self.path.sigma(t)",
            "where, weights = [j, j + m], [⟦-→⟧way.path.alpha(t[j])",
            "return [(below - 1, ⟦1 - share→share⟧), (below, share)]",
            "(way.gain * way.path.⟦alpha→sigma⟧(way.times))[2:-1]",
        ],
    ),
    "fitting/polish.py": (
        "test_tune.py",
        [
            "columns.append((part.gap(end(part.denoise, sampler, near, last, max(k - 1, 0))) ⟦-→+⟧ r) / by)",
            "weight = ⟦1 / size→size⟧.clamp",
            "tried)) ⟦<→>⟧ before",
        ],
    ),
    "fitting/solve.py": (
        "test_tune.py",
        [
            "if calls(sampler, path, times) ⟦<=→>=⟧ nfe",
            "ratio = ours.mean() / ⟦theirs→ours⟧.mean()",
            "(ours ⟦- ratio * theirs→⟧).std()",
            "polish(exact.⟦fit→held⟧, sampler, begin",
        ],
    ),
    "noise.py": (
        "test_noise.py",
        [
            "before, (seed, stream) = counter ⟦- 1→⟧, key",
            "before >> ⟦64→65⟧ & _WORD",
            '"key": [seed & _WORD, ⟦stream→0⟧]',
            "samples[1:] != samples[:-1] ⟦+→-⟧ 1",
            "apart ⟦|=→&=⟧ numbers[1:] != numbers[:-1]",
            "(blocks << 192) + ((k & _WORD) << ⟦128→64⟧) + i * blocks",
            "(⟦blocks→0⟧ << 192)",
            "end % rows == 0 ⟦or→and⟧ end == b",
            "((out >> 12) ⟦+ 0.5→⟧) * 2.0**-52",
            "bits.view(np.int32)[:, ⟦half→0⟧ : 2 * half]",
            "(0.5, 2.0**-32, ⟦-2.0→-1.0⟧, math.pi / 2**31)",
            "(⟦0.5→0.0⟧, 2.0**-32",
            "np.⟦sin→cos⟧(angle, angle)",
            "0 <= i - start ⟦<→<=⟧ len(drawn)",
            "stream=⟦1→0⟧ + k, dtype=dtype).split(b)",
        ],
    ),
    "oracle.py": (
        "test_oracle.py",
        [
            "self.weights.cumsum(0), uniform(⟦seed→0⟧, index)",
            "self._variances[which]⟦.sqrt()→⟧",
            "x[:, None] ⟦-→+⟧ alpha[:, None, None] * self.means",
            "alpha[:, None, None] ⟦** 2→⟧ * self._variances + sigma",
            "gap**2 / spread ⟦+→-⟧ spread.log()",
            "self.weights.log() - square / ⟦2→1⟧",
            "back(alpha⟦[:, None, None]→[:, None, None] ** 2⟧ * self._variances * white)",
            "back(⟦sigma→alpha⟧[:, None, None] * white)",
            "self._blocks()], 1) ** 2 * alpha[:, None] ** ⟦2→1⟧",
            "-square / (⟦2→1⟧ * sigma[:, None] ** 2)",
            "dim * (sigma.log() + math.log(2 * math.pi) / ⟦2→1⟧)",
            "(x.double().flatten(1) ⟦-→+⟧ alpha[:, None] * x0)",
            'own ⟦|→&⟧ cond["drop"]',
        ],
    ),
    "samplers/ancestral.py": (
        "test_samplers.py",
        [
            "(-torch.expm1(⟦2→1⟧ * (path.lam(t)",
            "(path.lam(t) ⟦-→+⟧ path.lam(s))",
            "(1 - fresh⟦**2→⟧).sqrt()",
            "sigma = path.sigma(⟦s→t⟧)",
            "return path.alpha(⟦s→t⟧), sigma",
            "fresh = ⟦self.eta→self.eta**2⟧ *",
        ],
    ),
    "samplers/base.py": (
        "test_samplers.py",
        [
            "return combine((signal, d.x0), (⟦kept→signal⟧, d.eps), *more)",
            "(kept, d.eps), (⟦fresh→kept⟧, noise(0)), *more)",
            "(self.past,), -torch.inf), times[⟦:-1→1:⟧]])",
            "unfold(0, self.past + 1, 1)⟦.flip(-1)→⟧[:, 1:]",
            "return number ⟦!=→==⟧ 0 if",
        ],
    ),
    "samplers/form.py": (
        "test_solvers.py test_samplers.py",
        [
            'return lam if self.clock == "lam" else torch.exp(⟦-lam→lam⟧)',
            "path.alpha(t) ⟦+→-⟧ (s - t) * alpha",
            "(s - t) * alpha, path.sigma(t) + (s ⟦-→+⟧ t) * sigma",
            "(path.lam(t) ⟦-→+⟧ path.lam(s))) if",
            "psi(s) / psi(t)⟦) *→**2) *⟧ self",
            "lam, fall = -tau.log(), ⟦-1→1⟧ / tau",
            "alpha / path.alpha(tau) ⟦-→+⟧ sigma / path.sigma(tau)",
            "path.alpha(s) * (1 ⟦+→-⟧ self.rho) * torch.exp",
            "torch.exp((1 + self.rho) * (lam ⟦-→+⟧ path.lam(s)))",
            "path.sigma(s) * torch.exp(⟦lam→-lam⟧) if",
            "⟦-path→path⟧.alpha(s) * torch.exp(-lam)",
            'path.sigma if self.variable == ⟦"x0"→"eps"⟧ else path.alpha\n        return finite',
            "(end - start) * (0.5 ⟦+→-⟧ _ROOTS",
            "gaps = knots.isfinite(), knots[:, None] ⟦-→+⟧ knots",
            "(tau ⟦-→+⟧ knots[:, None]) / gaps",
            "shares, ⟦1.0→0.0⟧).unbind(1)",
        ],
    ),
    "samplers/multistep.py": (
        "test_samplers.py test_solvers.py",
        [
            "path.sigma(⟦s→t⟧) * (1 - form.decay",
            "(1 - form.decay(path, t, s) ** ⟦2→1⟧).sqrt()",
            "return signal ⟦+→-⟧ weights[0] * a",
            "kept ⟦+→-⟧ weights[0] * b",
            "weights ⟦+=→-=⟧ form.carry",
            "form.carry(path, ⟦t, s→s, t⟧)",
            "corrected[1:] ⟦-=→+=⟧ predicted",
            "corrected[[0, 1]] = corrected[[⟦1, 0→0, 1⟧]]",
            "line / (tau ⟦-→+⟧ now)",
            "(end - start) ** 2 / ⟦2→3⟧ * self.form.kernel",
            "return (end - start) / ⟦2→3⟧ * still",
            "torch.stack([⟦-sum→sum⟧(weights",
            "*zip(weights, ⟦seen→seen[::-1]⟧, strict=True)",
            "value(self.variable, d, row), *seen[⟦:-1→1:⟧]))",
        ],
    ),
    "samplers/pseudo.py": (
        "test_solvers.py test_samplers.py",
        [
            "-59 / ⟦24→23⟧",
            "sigma ⟦-→+⟧ alpha * path.sigma(t) / path.alpha(t)",
            "path.sigma(s) ⟦-→+⟧ sum(others",
            "((t + s) / ⟦2→3⟧, s))",
            "return change(outer) / ⟦2→3⟧",
            "combine((1 / 3, first), (1 / ⟦3→2⟧, second)",
            "return BASHFORTH[0], (self.gamma, 1 ⟦-→+⟧ self.gamma)",
        ],
    ),
    "samplers/runge_kutta.py": (
        "test_samplers.py test_solvers.py",
        [
            "back = (self.churn * (path.lam(s) ⟦-→+⟧ lam))",
            "clamp(max=math.log(2) / ⟦2→1⟧)",
            "(torch.exp(-lam) ⟦>=→<=⟧ self.low)",
            "(torch.exp(-lam) ⟦<=→>=⟧ self.high)",
            "path.time(lam ⟦-→+⟧ back)",
            "path.time(lam - back)⟦.clamp(max=1)→⟧",
            "path.transition(⟦t, up→up, t⟧)",
            "return up, keep, ⟦self.scale * fresh→fresh⟧",
            "start ⟦+→-⟧ c * (end - start)",
            "weight / ⟦len(group)→2⟧",
            "instead = ⟦-sum→sum⟧(weights[1:]",
            "((0,), (⟦1, 2→1, 1⟧), (3,))",
            "(1 / 2, 3 / 4), (((0,),), ((⟦1→0⟧,),))",
        ],
    ),
    "samplers/adaptive.py": (
        "test_solvers.py",
        [
            "(⟦-step→step⟧ * a, k) for a, k",
            "(step * e, k) for e, k in zip(pair.error, ⟦seen→seen[::-1]⟧",
            "-2187 / ⟦6784→6783⟧",
            "(size ⟦<=→>=⟧ 1)",
            "calls + len(pair.shares) ⟦* going→⟧",
            "self.atol ⟦+→*⟧ self.rtol",
            "((⟦-torch→torch⟧.sin(angle), d.x0)",
        ],
    ),
    "guidance/linear.py": (
        "test_guidance.py",
        [
            "u.x0 + w * (c.x0 ⟦-→+⟧ u.x0)",
            "u.eps + w * (⟦c→u⟧.eps - u.eps)",
            "torch.where(std > 0, own ⟦/→*⟧ std, 1.0)",
            "(1 + self.rescale * (ratio ⟦- 1→⟧))",
            "return self.scale == ⟦1→0⟧",
            "Denoised(line(c, u, self.scale).x0, ⟦u→c⟧.eps)",
        ],
    ),
    "samplers/scales.py": (
        "test_scales.py",
        [
            "s * (r ⟦-→+⟧ new) ** 2 / (rho",
            "(rho * rho_new + s**2 ⟦+→-⟧ r * new)",
            "turned ⟦-→+⟧ turn(s, wide, other",
            "(1 - y) * (1 - new / r) ⟦-→+⟧ new / wide",
            "torch.atan(wide * (r ⟦-→+⟧ new)",
            "(1 ⟦-→+⟧ extent.std / wide)",
            "torch.where(first, ⟦-→⟧path.alpha(t) * again, 0.0)",
            "*(rows[1] ⟦-→+⟧ rows[0])",
            "sigma ⟦+→-⟧ alpha * noise",
        ],
    ),
    "nets/kernels/convolution.cpp": (
        "test_kernels.py",
        [
            "e[0][j] = d0 ⟦-→+⟧ d2",
            "store(to + 3 * plane, e[i][1] ⟦-→+⟧ e[i][3])",
            "e[1][j] = m1 - m2 ⟦-→+⟧ load(m + 12",
            "e[i][1] - e[i][2] - e[i][3] ⟦+ bias→⟧",
            "store(to + 3 * plane, ⟦-→⟧e[i][1])",
            "JOIN ? load(c) ⟦+→-⟧ sum[r][0]",
            "taps[⟦8 - tap→tap⟧][r][k]",
            "(g0 ⟦-→+⟧ g1 + g2) * 0.5f, e[3][j] = g2",
            "y + i ⟦>= 0→> 0⟧ && y + i",
            "x + j < map.⟦w→h⟧;",
            "⟦begin→!begin⟧ ? product<true>",
            "float half = (q[1][j] ⟦+→-⟧ q[2][j])",
            "to[2 * in] = half ⟦+→-⟧ e[i][3]",
            "r < count; r ⟦+= ROWS→+= 2 * ROWS⟧",
        ],
    ),
    "nets/kernels/norm.cpp": (
        "test_kernels.py",
        [
            "n * 0.693359375f ⟦+→-⟧ n * 2.12194440e-4f",
            "z > high ? ⟦high→low⟧ : z",
            "Vector away = load(x + p * c + i) ⟦- mean→⟧;",
            "squares += sums[(2 * k + 1) * c + i] ⟦+ count * away * away→⟧",
            "1 / std::sqrt(squares / all ⟦+→-⟧ eps)",
            "sure * (1.f + z * (1.f ⟦-→+⟧ sure))",
            "times += slope * ((value ⟦-→+⟧ m) * s)",
            "(⟦m * s * times - plain→-plain⟧) / all",
            "k[c + i] = ⟦-→⟧s * s * times / all",
            "db[at] = ⟦sum, da[at] = with→with, da[at] = sum⟧",
            "return std::min(PIXELS, ⟦pixels - chunk * PIXELS→pixels⟧)",
        ],
    ),
    "nets/kernels/convolution.py": (
        "test_kernels.py",
        [
            "ops.convolve(g, weight, None, ⟦True→False⟧)",
            "        if ⟦torch.is_grad_enabled()→False⟧:",
            "weight.shape[⟦1 if turned else 0→0⟧]\n    x, weight = x.contiguous(memory_format=LAST)",
            "return ⟦2 * 9→2⟧ * math.prod(x)",
            "0 ⟦< min(len(x), into, out)→⟧",
            "bias.shape == (out,) ⟦and plain(x, weight, bias)→⟧",
            "bias is None else ⟦bias.shape == (out,) and→⟧ plain",
        ],
    ),
    "nets/kernels/norm.py": (
        "test_kernels.py",
        [
            "if ⟦not torch.is_grad_enabled()→True⟧:",
            "⟦v.contiguous(memory_format=LAST)→v⟧ for v in (x, g)",
            "(⟦next(found) if needed else None→next(found)⟧ for needed",
        ],
    ),
    "guidance/rule.py": (
        "test_guidance.py",
        [
            "(t ⟦>=→>⟧ low) & (t <= high)",
            "(t >= low) ⟦&→|⟧ (t <= high)",
            "torch.cat([⟦kept, dropped→dropped, kept⟧])",
            'cond.get("drop", ⟦~dropped→dropped⟧)',
            "d.eps + back * (d.x0 ⟦-→+⟧ x0)",
            "torch.where(mask, guided.x0, ⟦c→guided⟧.x0)",
        ],
    ),
    "denoiser.py": (
        "test_denoiser.py",
        [
            "1 / torch.hypot(self.path.alpha(t) ⟦*→/⟧ self.data_std",
            "self.data_std, self.path.⟦sigma→alpha⟧(t))",
            "return ⟦-path→path⟧.lam(t).clamp(-20, 20) / 4",
            'getattr(path, "n", 1000) * t ⟦- 1→⟧',
            "carry(x, t, ⟦self._path, self.model.path→self.model.path, self._path⟧)",
        ],
    ),
    "sampling/loop.py": (
        "test_sampling.py",
        [
            "along(path.⟦sigma→alpha⟧(times), eps) * eps",
            "draws(⟦i→0⟧, draw), device)",
            "sampler.move(denoise, state, times[i ⟦+ 1→⟧], numbers",
        ],
    ),
    "sampling/samples.py": (
        "test_sampling.py",
        [
            "torch.arange(first ⟦+→-⟧ low, first",
            "value[low : low ⟦+→-⟧ size]",
        ],
    ),
    "objective/weight.py": (
        "test_objective.py test_verify.py::test_theorem",
        [
            "torch.exp(⟦2→1⟧ * path.lam(t))",
            "prediction.gain(path, t) ** ⟦-2→-1⟧\n",
            "snr(path, t).clamp(⟦max→min⟧=self.gamma)",
            "snr(path, t) ⟦+→-⟧ self.sd**-2",
            "return ⟦-slope→slope⟧(path.lam, t) * snr(path, t)",
            "torch.sigmoid(self.bias - ⟦2→1⟧ * path.lam(t))",
        ],
    ),
    "objective/time.py": (
        "test_objective.py test_verify.py::test_theorem",
        [
            "torch.exp(-(((z ⟦-→+⟧ mean) / std) ** 2) / 2)",
            "(std * math.sqrt(⟦2→3⟧ * math.pi))",
            "/ (t * (1 ⟦-→+⟧ t))",
            "path.time(⟦-self→self⟧.mean - self.std",
            "(index % self.strata ⟦+→-⟧ uniform(",
        ],
    ),
    "objective/loss.py": (
        "test_objective.py test_verify.py::test_theorem",
        [
            "return w ⟦/→*⟧ self.times.density(t, path)",
            "rule.gain(path, t) ** ⟦2→1⟧,",
        ],
    ),
}


class Mutant(NamedTuple):
    """One flip: the file, the passage as it stands and as it becomes, and the tests to run."""

    file: str
    flip: str
    old: str
    new: str
    tests: str

    @staticmethod
    def read(file: str, flip: str, tests: str) -> "Mutant":
        """The mutant that a line of the table describes."""
        before, rest = flip.split("⟦")
        change, after = rest.split("⟧")
        old, new = change.split("→")
        return Mutant(file, " ".join(flip.split()), before + old + after, before + new + after, tests)


def mutants(only: str) -> Iterator[Mutant]:
    """All mutants whose file's name contains `only`; a passage that is not found once is a mistake in the table."""
    for file, (tests, flips) in MUTANTS.items():
        text = (HOUSE / "src" / "pellucid" / file).read_text()
        for mutant in (Mutant.read(file, flip, tests) for flip in flips if only in file):
            if text.count(mutant.old) != 1:
                sys.exit(f"{file}: {mutant.flip!r} is found {text.count(mutant.old)} times; expected once.")
            yield mutant


def killed(mutant: Mutant) -> bool:
    """Whether the tests, run on a copy with the flip in it, notice. Runs in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        house = copy(Path(folder))
        path = house / "src" / "pellucid" / mutant.file
        path.write_text(path.read_text().replace(mutant.old, mutant.new))
        return run(house, mutant.tests) != 0


def copy(house: Path) -> Path:
    """The sources and tests, without what Python has compiled of them."""
    for part in ("src", "tests"):
        shutil.copytree(HOUSE / part, house / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(HOUSE / "pyproject.toml", house)
    return house


def run(house: Path, tests: str) -> int:
    """pytest's exit code for some quick tests of a copy, silently."""
    os.chdir(house)
    sys.path.insert(0, str(house / "src"))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1), os.dup2(quiet, 2)
    wanted = [str(house / "tests" / name) for name in tests.split()]
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", *wanted]))


def noticed(verdict: "AsyncResult[bool]") -> bool:
    """A verdict once it is there; a mutant that never ends is noticed too."""
    try:
        return verdict.get(PATIENCE)
    except TimeoutError:
        return True


def main() -> int:
    """Try all mutants, each in a process of its own."""
    sys.dont_write_bytecode = True  # a flip of the same length within a second would not be seen
    todo, began, dead = list(mutants(sys.argv[1] if len(sys.argv) > 1 else "")), time.time(), 0
    with get_context("fork").Pool(os.cpu_count(), maxtasksperchild=1) as pool:
        healthy = {mutant.tests: mutant._replace(new=mutant.old) for mutant in todo}
        for tests, ill in zip(healthy, pool.map(killed, healthy.values(), chunksize=1), strict=True):
            if ill:
                sys.exit(f"{tests} fail without any mutant; mend that first.")
        verdicts = [pool.apply_async(killed, [mutant]) for mutant in todo]
        for i, (mutant, verdict) in enumerate(zip(todo, verdicts, strict=True), start=1):
            died = noticed(verdict)
            dead += died
            print(f"{i:3}/{len(todo)}  {'killed' if died else 'LIVES '}  {mutant.file:24} {mutant.flip}", flush=True)
    share = dead / len(todo)
    print(f"{dead} of {len(todo)} mutants killed: {share:.1%} in {time.time() - began:.0f} s (expected: {ENOUGH:.0%})")
    return 0 if share >= ENOUGH else 1


if __name__ == "__main__":
    sys.exit(main())
