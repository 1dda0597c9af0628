"""The eyes: they see what they say they see, are told apart by their hashes, and open nothing but tensors."""

import hashlib
import json
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pellucid import PellucidError
from pellucid.metrics import features
from pellucid.metrics.features import classifier, inception, look, reader, unpickled, usual


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/pellucid/features"


def stripes(n: int, seed: int = 0, side: int = 8) -> tuple[Tensor, Tensor]:
    """Pictures in model units whose class is the direction of their stripes."""
    rng = torch.Generator().manual_seed(seed)
    label = torch.arange(n) % 2
    wave = torch.sin(torch.arange(side) * 2.0 + 6.28 * torch.rand(n, 1, 1, 1, generator=rng)).expand(-1, 1, side, -1)
    x = torch.where(label.reshape(-1, 1, 1, 1) == 0, wave, wave.transpose(2, 3))
    return x + 0.3 * torch.randn(n, 1, side, side, generator=rng), label


def test_each_kind_of_data_has_its_usual_eyes() -> None:
    x, label = stripes(4)
    assert [usual(x, label), usual(x, None), usual(x.flatten(1), label)] == ["classifier", "untrained", "values"]
    assert torch.equal(look("values", x, None, 0)(x), x.flatten(1).double())


def test_a_single_class_teaches_nobody_to_see() -> None:
    """Of whatever number is declared: there is nothing to tell apart."""
    x, label = stripes(40)
    eyes = look(usual(x, 0 * label), x, 0 * label, 2)
    assert eyes.name == "untrained" and reader(eyes, x, 0 * label, 2) is None
    with pytest.raises(PellucidError, match="two classes or more"):
        look("classifier", x, 0 * label, 2)


def test_untrained_eyes_are_the_same_for_everyone_and_disturb_nobody() -> None:
    x, _ = stripes(40)
    state = torch.random.get_rng_state()
    one, other = (look("untrained", x, None, 0) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert one.digest == other.digest and torch.equal(one(x), other(x))
    assert one(x).shape == (40, 64) and torch.linalg.matrix_rank(one(x).T.cov()) > 30


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "STEPS", 25)


def test_a_classifier_reads_new_pictures_and_is_kept(cache: Path, short: None) -> None:
    (x, label), (new, truth) = stripes(200), stripes(100, seed=1)
    steps: list[int] = []
    eyes = look("classifier", x, label, 2, lambda done, total: steps.append(done))
    assert isinstance(eyes, classifier.Classifier) and steps[-1] == 25
    assert (eyes.judge(new) == truth).double().mean() > 0.95
    (kept,) = cache.iterdir()
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == eyes.digest and eyes.distance == f"FD-{eyes.digest[:8]}"
    again = look("classifier", x, label, 2, lambda done, total: steps.append(-1))
    assert steps[-1] == 25 and torch.equal(again(new), eyes(new))
    named = look(str(kept), x, label, 2)
    assert named.digest == eyes.digest and torch.equal(named(new), eyes(new))
    look("classifier", x, 1 - label, 2)
    assert len(list(cache.iterdir())) == 2  # other data, other eyes


def test_a_torn_classifier_is_trained_again(cache: Path, short: None) -> None:
    x, label = stripes(50)
    eyes = look("classifier", x, label, 2)
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2])
    assert look("classifier", x, label, 2).digest == eyes.digest and kept.read_bytes() == whole


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("clasifier", "did you mean 'classifier'?"),
        ("nowhere/weights.pth", "there is no nowhere/weights.pth; expected a file of weights"),
        ("empty", "holds no .safetensors"),
        ("torn.safetensors", "holds no Inception-v3"),
        ("torn.pth", "holds no plain dictionary of tensors"),
        ("other.safetensors", "holds no Inception-v3 .*Conv2d_1a_3x3.conv.weight"),
        ("liar.safetensors", "is no classifier of pellucid's"),
    ],
)
def test_eyes_that_are_not_there_are_one_sentence(name: str, said: str, tmp_path: Path) -> None:
    x, label = stripes(4)
    (tmp_path / "empty").mkdir()
    for torn in ("torn.pth", "torn.safetensors"):
        (tmp_path / torn).write_bytes(b"no weights")
    save_file({"a": torch.ones(2)}, tmp_path / "other.safetensors")
    save_file({"a": torch.ones(2)}, tmp_path / "liar.safetensors", {"pellucid": json.dumps({"shape": [1, 8, 8]})})
    if name == "empty":
        pytest.importorskip("transformers", reason="transformers is an extra")
    with pytest.raises(PellucidError, match=said) as error:
        look(name if "/" in name or name == "clasifier" else str(tmp_path / name), x, label, 2)
    assert "\n" not in str(error.value)


def test_eyes_see_only_what_they_can() -> None:
    x, label = stripes(4)
    with pytest.raises(PellucidError, match=r"sees pictures of \(1, 8, 8\), not \(1, 16, 16\)"):
        look("untrained", x, None, 0)(stripes(4, side=16)[0])
    with pytest.raises(PellucidError, match="untrained sees pictures, not samples of shape"):
        look("untrained", x.flatten(1), None, 0)
    with pytest.raises(PellucidError, match="a classifier needs two classes or more"):
        look("classifier", x, None, 0)


# inception --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Random weights under which no layer is silent, with those of the last layer, which is not asked."""
    net = inception.Net()
    rng = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=rng)
    return {**net.state_dict(), "fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}


def test_inception_has_the_weights_of_inception(weights: dict[str, Tensor]) -> None:
    """Szegedy's network has 23,834,568 weights with a last layer for 1000 classes; the file holds 566 tensors."""
    assert sum(p.numel() for p in inception.Net().parameters()) == 23_834_568 - 2049 * 1000 and len(weights) == 566


def test_inception_sees_with_any_weights_but_calls_only_one_fid(
    weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "inception.pth"
    torch.save(OrderedDict(weights), path, _use_new_zipfile_serialization=False)
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    eyes = look(str(path), x, None, 0)
    seen = eyes(x)
    assert seen.shape == (2, 2048) and (seen[0] - seen[1]).abs().max() > 1e-3
    assert torch.allclose(eyes(x[:1].expand(-1, 3, -1, -1)), seen[:1])  # grey is equal colours
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert eyes.plain() == {"name": "inception-v3", "sha256": digest, "resize": inception.RESIZE}
    assert eyes.distance == f"FD-{digest[:8]}"
    monkeypatch.setattr(inception, "CANONICAL", digest)
    assert look(str(path), x, None, 0).distance == "FID"


@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file_is_read_without_unpickling(zipped: bool, tmp_path: Path) -> None:
    whole = torch.arange(24, dtype=torch.float64).reshape(4, 6)
    saved = {"a": whole[1:3, ::2], "b": whole.T, "c": torch.tensor(7), "d": torch.zeros(0), "half": whole.half()}
    torch.save(OrderedDict(saved, e=nn.Parameter(whole)), tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    read = unpickled.tensors(tmp_path / "x.pth")
    assert read.keys() == {*saved, "e"}
    assert all(torch.equal(read[key], value) and read[key].dtype == value.dtype for key, value in saved.items())


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("evil"),)


def test_a_torch_file_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for zipped in (True, False):
        torch.save({"a": torch.ones(2), "b": Evil()}, "evil.pth", _use_new_zipfile_serialization=zipped)
        with pytest.raises(PellucidError, match="holds no plain dictionary of tensors"):
            unpickled.tensors(Path("evil.pth"))
    assert not Path("evil").exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("held", [[torch.ones(2)], torch.ones(2), 3, None], ids=["list", "tensor", "number", "none"])
def test_a_torch_file_of_something_else_is_one_sentence(zipped: bool, held: object, tmp_path: Path) -> None:
    torch.save(held, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(PellucidError, match="holds no plain dictionary of tensors"):
        unpickled.tensors(tmp_path / "x.pth")


def test_damaged_torch_files_are_one_sentence(tmp_path: Path) -> None:
    for zipped in (True, False):
        torch.save({"a": torch.ones(300)}, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
        whole = (tmp_path / "x.pth").read_bytes()
        for length in range(0, len(whole) - 300, 97):
            (tmp_path / "y.pth").write_bytes(whole[:length])
            with pytest.raises(PellucidError, match="holds no plain dictionary of tensors"):
                unpickled.tensors(tmp_path / "y.pth")


# transformers -----------------------------------------------------------------------------------------------------


def test_any_vision_model_lends_its_eyes(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is an extra")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.ViTConfig(**sizes, image_size=32, patch_size=8)
    transformers.ViTModel(config).save_pretrained(tmp_path / "vit")
    x = torch.rand(3, 1, 8, 8) * 2 - 1
    eyes = look(str(tmp_path / "vit"), x, None, 0)
    assert eyes(x).shape == (3, 16) and torch.equal(eyes(x), eyes(x))
    assert eyes.name == "vit" and "32 x 32" in eyes.resize
    assert eyes.digest == hashlib.sha256((tmp_path / "vit/model.safetensors").read_bytes()).hexdigest()


def test_a_missing_transformers_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(PellucidError, match=r"vision models need transformers; run pip install 'pellucid\[vision\]'"):
        features.vision.load(tmp_path)
