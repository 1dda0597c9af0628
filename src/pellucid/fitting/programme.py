r"""Dynamic programming: the cheapest grid of N steps among all that a set of times allows (Bellman 1957).

    C_1(i, j) = begin_i + first_ij,      C_k+1(i, j) = min_p C_k(p, i) + later_pij,      best = min_i C_N(i, data)

A grid is a walk whose state is the pair of its last two times, as a step may remember one of them.
"""

from typing import NamedTuple

from torch import Tensor


class Costs(NamedTuple):
    """Of starting at i [m], of a first step i -> j [m, m], of a later one with past p [m, m, m] or without [m, m]."""

    begin: Tensor
    first: Tensor
    later: Tensor


def cheapest(costs: Costs, steps: int) -> tuple[list[int], float]:
    """The nodes i_0 < ... < i_{N-1} from which the steps start (the last one ends at the last node); their cost."""
    total, choices = costs.begin[:, None] + costs.first, list[Tensor]()
    for _ in range(steps - 1):
        total, choice = (total[:, :, None] + costs.later).min(0)  # costs.later [m, m] serves every p
        choices.append(choice)
    best, i = total[:, -1].min(0)
    nodes, j = [int(i)], len(total) - 1
    for choice in reversed(choices):
        j, before = nodes[-1], int(choice[nodes[-1], j])
        nodes.append(before)
    return nodes[::-1], float(best)
