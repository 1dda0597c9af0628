"""Handwritten digits: 1797 real pictures of 8 x 8 pixels by 43 people, shipped inside scikit-learn.

E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (the test part of that set).
"""

import numpy as np
import torch

from ..errors import PellucidError
from .dataset import Dataset, Split, hold_out


def digits() -> Dataset:
    """1297 digits to train on and 500 held out, every class in proportion; the division is always the same."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise PellucidError("the digits need scikit-learn; run pip install 'pellucid[demo]'.") from None
    ink, label = load_digits(return_X_y=True)  # 0 .. 16
    x = np.rint(ink * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    everything = Split(torch.from_numpy(x), torch.from_numpy(label).long())
    train, test = hold_out(everything, 500 / len(x))
    return Dataset("digits", train, test, tuple("0123456789"))
