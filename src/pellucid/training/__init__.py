"""Training: one loop over an explicit state.

    theta <- method(theta, grad mean_i loss_i),    ema <- lerp(ema, theta)

Sample number i of a run has its picture, time, noise and dropped conditions from (seed, i) alone.
"""

from .learner import Learner, Progress
from .plan import Plan
from .run import Run, train
from .signals import Stopped

__all__ = ["Learner", "Plan", "Progress", "Run", "Stopped", "train"]
