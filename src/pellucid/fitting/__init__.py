r"""Fitted grids: the times that suit one model and one sampler, for one budget of calls.

    x(t)        the exact way of a sample from its noise to data, by many steps              (exact.py)
    e_pij       what one step t_i -> t_j, remembering t_p, makes of the exact x(t_i), against x(t_j)  (local.py)
    a_j         |dx(0)| / |dx(t_j)|, what becomes of an error                                (exact.py)

The error of a grid is at most about  sum a_j |e_pij|  over its steps: a sum over pairs of neighbours, so that dynamic
programming finds the best grid among all (programme.py; Watson et al. 2021 do so for the likelihood's terms, Xue et al.
2024 minimise such a bound by gradients). The end itself,  r(t_0 ... t_{N-1}) = x_N - x(0),  is then made least by Gauss
and Newton's method on the times (polish.py), and measured on samples that the fit has not seen (solve.py; learning the
times through the sampler: Tong et al. 2024, Frankel et al. 2025).
"""

from .exact import Exact, follow
from .local import density
from .solve import Fit, called, choose, deterministic, fit, refuse
from .store import find, load, remark, save

__all__ = [
    "Exact",
    "Fit",
    "called",
    "choose",
    "density",
    "deterministic",
    "find",
    "fit",
    "follow",
    "load",
    "refuse",
    "remark",
    "save",
]
