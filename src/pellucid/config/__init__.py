"""Recipes: everything that decides what is trained and how it is drawn, as TOML.

    recipe      a recipe whole: its parts checked, its model, its objective and its plan built
    sections    its settings
    source      where its table comes from
    toml        `key.sub=value` on the command line overrides one setting
"""

from .recipe import Recipe, named
from .sections import Aim, Data, Eval, Optim, Sample, Train
from .source import shipped

__all__ = ["Aim", "Data", "Eval", "Optim", "Recipe", "Sample", "Train", "named", "shipped"]
