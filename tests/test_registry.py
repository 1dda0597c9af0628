"""A part is its name and its options: made, described, made again; a mistake in either is one sentence."""

import json
import math
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar

import pytest
from torch import nn

from pellucid import PellucidError, conditioning, grids, nets, objective, paths, predictions, samplers
from pellucid.data import augment, toys
from pellucid.registry import Registry
from pellucid.training import optimisers, trackers

FAMILIES = {
    "path": paths.registry,
    "prediction": predictions.registry,
    "grid": grids.registry,
    "sampler": samplers.registry,
    "times": objective.times,
    "weight": objective.weights,
    "toy": toys.registry,
    "network": nets.registry,
    "conditioner": conditioning.registry,
    "augmentation": augment.registry,
    "optimiser": optimisers.registry,
    "tracker": trackers.registry,
}
NEEDED: dict[tuple[str, str], dict[str, Any]] = {
    ("path", "table"): {"betas": [0.1, 0.2]},
    ("path", "shifted"): {"base": {"name": "cosine", "s": 0.01}},
    ("grid", "fitted"): {"at": [1.0, 0.25]},
    ("conditioner", "label"): {"classes": 3},
}
CONTEXT = {"network": ((1, 8, 8),)}
PARTS = [
    (family, name)
    for family, registry in FAMILIES.items()
    for name in registry.names()
    if name not in registry.settings  # full-sized networks: see test_nets
]


def make(family: str, name: str) -> Any:
    return FAMILIES[family].make({"name": name, **NEEDED.get((family, name), {})}, *CONTEXT.get(family, ()))


@pytest.mark.parametrize("family, name", PARTS)
def test_described_and_made_again_a_part_is_itself(family: str, name: str) -> None:
    registry, part = FAMILIES[family], make(family, name)
    table = json.loads(json.dumps(registry.describe(part)))
    again = registry.make(table, *CONTEXT.get(family, ()))
    assert registry.describe(again) == table and type(again) is type(part)
    assert again == part or isinstance(part, nn.Module)
    assert registry.resolve(part) is part


@pytest.mark.parametrize("family, name", PARTS)
def test_aliases_in_any_case_mean_the_same_part(family: str, name: str) -> None:
    registry = FAMILIES[family]
    assert registry.aliases[name] == name and name == name.lower() and name not in registry.aliases_of(name)
    for alias in registry.aliases_of(name):
        spec = {"name": alias.upper(), **NEEDED.get((family, name), {})}
        made = registry.make(spec, *CONTEXT.get(family, ()))
        assert registry.describe(made) == registry.describe(make(family, name))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_misspelt_name_is_told_the_right_one(family: str) -> None:
    registry = FAMILIES[family]
    name = max(registry.names(), key=len)
    with pytest.raises(PellucidError, match=f"unknown {family} '{name}q'; did you mean"):
        registry.make(name + "q")
    with pytest.raises(PellucidError, match=f"unknown {family} '§'; expected one of: .*{name}"):
        registry.make("§")


@pytest.mark.parametrize("name", nets.registry.classes)
@pytest.mark.parametrize("option, value", [("width", True), ("width", "64"), ("scale", math.inf), ("scale", math.nan),
                                           ("scale", 0.0), ("scale", True), ("scale", "1")])  # fmt: skip
def test_no_option_of_a_network_is_a_number_in_disguise(name: str, option: str, value: Any) -> None:
    with pytest.raises(PellucidError, match=f"{option} (=|is) {value!r}; expected a"):
        nets.registry.make({"name": name, option: value}, (1, 8, 8))


@pytest.mark.parametrize("value", [1, "yes", "true"])
def test_a_switch_is_true_or_false(value: Any) -> None:
    with pytest.raises(PellucidError, match=f"recompute = {value!r}; expected true or false"):
        nets.registry.make({"name": "unet", "recompute": value}, (1, 8, 8))


MAY_BE_INFINITE = {("sampler", "runge-kutta", "high"), ("sampler", "extended-sde", "high")}
NUMBERS = [
    (family, name, field.name)
    for family, registry in FAMILIES.items()
    for name, cls in registry.classes.items()
    if is_dataclass(cls)
    for field in fields(cls)
    if field.init and isinstance(field.default, float)
]


@pytest.mark.parametrize(
    "value",
    [math.nan, -math.inf, math.inf, 10**400, "one", "1", True],
    ids=["nan", "-inf", "inf", "huge", "word", "text", "true"],
)
def test_no_option_is_out_of_all_bounds(value: Any) -> None:
    """By name and by hand alike, an option that is a number is a finite one."""
    for family, name, option in NUMBERS:
        if value == math.inf and (family, name, option) in MAY_BE_INFINITE:
            continue
        registry = FAMILIES[family]
        with pytest.raises(PellucidError, match=option):
            registry.make({"name": name, **NEEDED.get((family, name), {}), option: value})
        if value in ("1", True):  # by hand, the type checker's
            continue
        needed = {"base": paths.Cosine()} if (family, name) == ("path", "shifted") else NEEDED.get((family, name), {})
        with pytest.raises(PellucidError, match=option):
            registry.classes[name](**{**needed, option: value})


@pytest.mark.parametrize("plain", [3, 2.5, None, True])
def test_plain_data_is_no_part(plain: Any) -> None:
    with pytest.raises(PellucidError, match="expected a name or a table"):
        paths.registry.resolve(plain)


@dataclass(frozen=True)
class Wheel:
    registry: ClassVar[Registry] = Registry("wheel")
    teeth: int = 3


@dataclass(frozen=True)
class Clock:
    rate: float
    wheel: Wheel = Wheel()


class Net(nn.Module):
    def __init__(self, shape: tuple[int, ...], *, width: int = 4) -> None:
        super().__init__()
        self.shape = shape


@pytest.fixture
def clocks() -> Registry:
    registry = Registry[Any]("clock")
    registry.register("clock", "tick-tock")(Clock)
    registry.preset("fast", Clock(9.0, Wheel(7)), "Swift")
    return registry


def test_a_preset_is_an_object_whose_options_may_be_changed(clocks: Registry) -> None:
    Wheel.registry.register("wheel")(Wheel)
    assert clocks.make("swift") is clocks.presets["fast"]
    assert clocks.make({"name": "fast", "rate": 8}) == Clock(8.0, Wheel(7))
    assert clocks.describe(clocks.make("fast")) == {
        "name": "clock",
        "rate": 9.0,
        "wheel": {"name": "wheel", "teeth": 7},
    }
    assert clocks.make({"name": "Tick-Tock", "rate": 1, "wheel": {"name": "wheel", "teeth": 5}}) == Clock(1.0, Wheel(5))
    assert clocks.make({"name": "clock", "rate": 1, "wheel": Wheel(2)}) == Clock(1.0, Wheel(2))
    assert clocks.names() == ["clock", "fast"] and clocks.aliases_of("fast") == ["swift"]


@pytest.mark.parametrize(
    "spec, sentence",
    [
        ({"name": "clock"}, "needs rate"),
        ({"name": "clock", "rat": 1}, "unknown option of clock 'clock': 'rat'; did you mean 'rate'"),
        ({"name": "clock", "rate": "quick"}, "has rate = 'quick'; .*number"),
        ({"rate": 1}, "unknown clock ''"),
        (7, "clock is 7; expected a name or a table"),
        (None, "clock is None; expected a name or a table"),
    ],
)
def test_a_mistake_is_one_sentence(clocks: Registry, spec: Any, sentence: str) -> None:
    with pytest.raises(PellucidError, match=sentence) as caught:
        clocks.make(spec)
    assert "\n" not in str(caught.value)


def test_a_part_that_nobody_registered_has_no_name(clocks: Registry) -> None:
    with pytest.raises(PellucidError, match="Wheel is not a registered clock"):
        clocks.describe(Wheel())


def test_a_name_that_is_no_part_has_a_sentence_of_its_own(clocks: Registry) -> None:
    clocks.refuse("Sundial", "has no wheels; take fast.")
    with pytest.raises(PellucidError, match=r"^clock 'SUNDIAL' has no wheels; take fast\.$"):
        clocks.make("SUNDIAL")
    assert clocks.canonical("Swift") == "fast" and "sundial" not in clocks.names()


def test_a_network_remembers_its_options() -> None:
    registry = Registry[Any]("net")
    registry.register("net")(Net)
    assert registry.describe(Net((2,))) == {"name": "net", "width": 4}
    assert registry.make({"name": "net", "width": 6}, (2,)).options == {"width": 6}
    assert registry.make("net", (5, 1)).shape == (5, 1)


def test_a_setting_is_a_class_with_options_that_may_be_changed() -> None:
    registry = Registry[Any]("net")
    registry.register("net")(Net)
    registry.setting("wide", "net", {"width": 9}, "Broad")
    assert registry.names() == ["net", "wide"] and registry.aliases_of("wide") == ["broad"]
    assert registry.describe(registry.make("broad", (2,))) == {"name": "net", "width": 9}
    assert registry.make({"name": "wide", "width": 5}, (2,)).options == {"width": 5}
    with pytest.raises(PellucidError, match="unknown option of net 'wide': 'wdth'; did you mean 'width'"):
        registry.make({"name": "wide", "wdth": 5}, (2,))
