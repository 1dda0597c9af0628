"""Layers of float32 on a CPU in C++, where that is faster than torch; everywhere else they are torch's own.

    conv2d       3 x 3 convolutions by Winograd's way             (convolution.py)
    norm.silu    silu(a norm(x) + b) in one, and in one gradient  (norm.py)

Results do not depend on the number of threads. The functions are compiled when one is first asked for, with $CXX, or
else with c++, and kept in the cache; where that fails, or the processor has no AVX2, all is torch's.
"""

from . import norm
from .compiled import version
from .convolution import Conv2d, conv2d

__all__ = ["Conv2d", "conv2d", "norm", "version"]
