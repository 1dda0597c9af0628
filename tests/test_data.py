"""Data: what goes in comes out, the halves part the whole, and whatever is broken is named in a sentence."""

import csv
import errno
import io
import json
import os
import random
import shutil
import struct
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pellucid import cli
from pellucid.data import Dataset, Split, check, dataset, load, packed
from pellucid.data.dataset import hold_out
from pellucid.data.pictures import Unreadable, read
from pellucid.errors import PellucidError

SHARED = Path(os.environ.get("PELLUCID_DATA", Path(__file__).parents[2] / "shared" / "data"))
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def solid(colour: object, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, colour)  # type: ignore[arg-type]


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def write(path: Path, content: Image.Image | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else encoded(content))
    return path


def refusal(source: object, **options: object) -> str:
    """The sentence in which a source is refused."""
    with pytest.raises(PellucidError) as error:
        load(source, **options)  # type: ignore[arg-type]
    text = str(error.value)
    assert "\n" not in text and "Traceback" not in text
    return text


def bomb(width: int = 30_000, height: int = 30_000) -> bytes:
    """A PNG of a few bytes that claims to be enormous."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


# the data set -----------------------------------------------------------------------------------------------------


def test_every_byte_survives_the_model_units() -> None:
    x = torch.arange(256, dtype=torch.uint8)
    units = Dataset.encode(x)
    assert units.dtype == torch.float32 and units.min() == -1 and units.max() == 1
    assert torch.equal(Dataset.decode(units), x)
    assert Dataset.decode(torch.tensor([-7.0, 1.001, 9.0])).tolist() == [0, 255, 255]


def test_moments_are_those_of_what_the_model_meets() -> None:
    rng = torch.Generator().manual_seed(0)
    for x in (torch.randint(256, (40, 3, 5, 5), generator=rng).to(torch.uint8), torch.randn(90, 2, generator=rng)):
        data = Dataset("it", Split(x))
        met = data.batch(torch.arange(len(x)))[0].double()
        assert data.mean == pytest.approx(met.mean().item(), abs=1e-14)
        assert data.std == pytest.approx(met.std(correction=0).item(), abs=1e-14)


def test_a_spectrum_is_looked_for_within_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of so many samples that float32 cannot count them, the last is the last."""
    monkeypatch.setattr(dataset, "MEASURED", 4)
    data = Dataset("it", Split(torch.ones(1, 1).expand(2**24 + 4, 1)))
    assert all(std == 1 for std, _ in data.spectrum)


@pytest.mark.parametrize(("n", "fraction"), [(20, 0.1), (97, 0.1), (500, 0.333), (1797, 500 / 1797), (30, 0.9)])
def test_holding_out_parts_the_whole_and_every_class_alike(n: int, fraction: float) -> None:
    rng = torch.Generator().manual_seed(n)
    label = torch.randint(3, (n,), generator=rng)
    whole = Split(torch.arange(n).unsqueeze(1).float(), label, tuple(map(str, range(n))))
    train, test = hold_out(whole, fraction)
    assert test is not None and len(test.x) == round(n * fraction)
    assert sorted(torch.cat([train.x, test.x]).flatten().tolist()) == list(range(n))
    assert test.label is not None and test.text == tuple(str(int(i)) for i in test.x)
    assert (test.label.bincount(minlength=3) - fraction * label.bincount(minlength=3)).abs().max() <= 1.5
    again, other = hold_out(whole, fraction)[1], hold_out(whole, fraction, seed=1)[1]
    assert again is not None and torch.equal(again.x, test.x)
    assert other is not None and not torch.equal(other.x, test.x)


def test_too_few_samples_are_not_parted() -> None:
    assert hold_out(Split(torch.zeros(19, 2)), 0.5)[1] is None
    assert hold_out(Split(torch.zeros(50, 2)), 0.0)[1] is None
    assert len(hold_out(Split(torch.zeros(50, 2)), 0.999)[0].x) == 1
    with pytest.raises(PellucidError, match="held_out"):
        Dataset("it", Split(torch.zeros(5, 2))).batch(torch.tensor([0]), "test")


def test_digits_are_all_there_and_exact() -> None:
    from sklearn.datasets import load_digits

    digits = load("digits")
    assert digits.test is not None and digits.test.label is not None
    assert (len(digits.train.x), len(digits.test.x), digits.shape) == (1297, 500, (1, 8, 8))
    ink = torch.cat([digits.train.x, digits.test.x]).flatten(1).double() * 16 / 255
    real = torch.from_numpy(load_digits().data)
    assert (ink - ink.round()).abs().max() < 0.05
    assert sorted(map(tuple, ink.round().tolist())) == sorted(map(tuple, real.tolist()))
    assert digits.test.label.bincount().tolist() == pytest.approx([50] * 10, abs=2)
    x, cond = digits.batch(torch.tensor([3, 5]), "test")
    assert x.shape == (2, 1, 8, 8) and torch.equal(cond["label"], digits.test.label[[3, 5]])


def test_toys_are_points_without_conditions() -> None:
    data = load("moons", seed=3)
    assert data.shape == (2,) and data.test is not None and not data.pictures
    assert not torch.equal(data.train.x[:100], load("moons", seed=4).train.x[:100])
    x, cond = data.batch(torch.tensor([0, 7]))
    assert torch.equal(x, data.train.x[[0, 7]]) and cond == {}


# folders ----------------------------------------------------------------------------------------------------------


def test_the_folder_is_the_class(tmp_path: Path) -> None:
    shades = {"2": 20, "10": 100, "cat": 200}
    for name, shade in shades.items():
        for i in range(3):
            write(tmp_path / name / f"{i}.png", solid((shade, 0, i)))
    data = load(tmp_path)
    assert data.classes == ("2", "10", "cat") and data.shape == (3, 8, 8) and data.test is None
    assert data.train.label is not None
    assert data.train.x[:, 0, 0, 0].tolist() == [shades[data.classes[i]] for i in data.train.label]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_captions_and_labels_from_metadata(tmp_path: Path, kind: str) -> None:
    lines = [
        {"file_name": "a.png", "text": "a red\nsquare, plain", "label": "warm"},
        {"file_name": "sub/b.png", "text": 'the "blue" one', "label": "cold"},
        {"file_name": "gone.png", "text": "missing", "label": "cold"},
        {"file_name": "../../secret.png", "text": "outside", "label": "cold"},
    ]
    write(tmp_path / "a.png", solid(RED)), write(tmp_path / "sub" / "b.png", solid(BLUE))
    write(tmp_path / "stray.png", solid(GREEN))
    with open(tmp_path / f"metadata.{kind}", "w", newline="") as file:
        if kind == "csv":
            table = csv.DictWriter(file, ["file_name", "text", "label"])
            table.writeheader(), table.writerows(lines)
        else:
            file.writelines(json.dumps(line) + "\n" for line in lines)
    data = load(tmp_path)
    assert data.train.text == ("a red\nsquare, plain", 'the "blue" one')
    assert data.classes == ("cold", "warm") and data.train.label is not None and data.train.label.tolist() == [1, 0]
    assert data.train.x[:, :, 0, 0].tolist() == [list(RED), list(BLUE)]
    reasons = {skipped.name.split("/")[-1]: skipped.reason for skipped in data.skipped}
    assert reasons == {
        "gone.png": "is not there",
        "secret.png": "lies outside the folder",
        "stray.png": "is not named in the metadata",
    }


def test_train_and_test_folders_are_taken_at_their_word(tmp_path: Path) -> None:
    for half, n in (("train", 30), ("test", 4)):
        for i in range(n):
            write(tmp_path / half / "ab"[i % 2] / f"{i}.png", solid((i, 0, 0), mode="RGB"))
    data = load(tmp_path, held_out=0.5)
    assert data.test is not None and (len(data.train.x), len(data.test.x)) == (30, 4)
    assert data.classes == ("a", "b") and data.test.label is not None and data.test.label.tolist() == [0, 0, 1, 1]


def test_a_train_folder_alone_is_no_class(tmp_path: Path) -> None:
    for i in range(40):
        write(tmp_path / "train" / "ab"[i % 2] / f"{i}.png", solid((i, 0, 0)))
    data = load(tmp_path)
    assert data.classes == ("a", "b") and data.test is not None and (len(data.train.x), len(data.test.x)) == (36, 4)


@pytest.mark.parametrize("held", ["test", "validation", "valid", "val"])
def test_what_is_in_neither_half_is_named(held: str, tmp_path: Path) -> None:
    halves = {"train": 30, held: 4, "unlabeled": 2}
    for half, n in halves.items():
        for i in range(n):
            write(tmp_path / half / "ab"[i % 2] / f"{i}.png", solid((i, 0, 0)))
    data = load(tmp_path)
    assert data.classes == ("a", "b") and data.test is not None and (len(data.train.x), len(data.test.x)) == (30, 4)
    (skipped,) = data.skipped
    assert skipped.name == "unlabeled" and f"files: 2), for train is trained on and {held} is held" in skipped.reason
    if held != "test":
        write(tmp_path / "test" / "a" / "0.png", solid(RED))
        data = load(tmp_path)
        assert data.test is not None and len(data.test.x) == 1 and data.classes == ("a", "b")
        assert {skipped.name for skipped in data.skipped} == {"unlabeled", held}
        assert held in {skipped.name for skipped in check(tmp_path)[1]}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("column", ["text", "caption", "captions", "prompt", "description"])
def test_each_caption_of_a_picture_is_a_sample(column: str, kind: str, tmp_path: Path) -> None:
    write(tmp_path / "a.png", solid(RED)), write(tmp_path / "b.png", solid(BLUE))
    said = [("a.png", "red\u2028as it is"), ("b.png", "blue"), ("a.png", "crimson")]
    with open(tmp_path / f"metadata.{kind}", "w", newline="", encoding="utf-8") as file:
        if kind == "csv":
            csv.writer(file).writerows([("file_name", column, "class"), *((name, text, name) for name, text in said)])
        else:
            lines = [{"file_name": name, column: text, "class": name} for name, text in said]
            file.writelines(json.dumps(line, ensure_ascii=False) + "\r\n" for line in lines)
    data = load(tmp_path)
    assert data.train.text == tuple(text for _, text in said) and data.classes == ("a.png", "b.png")
    assert data.train.x[:, :, 0, 0].tolist() == [list(RED), list(BLUE), list(RED)] and data.skipped == ()


def test_a_list_of_captions_is_a_sample_for_each(tmp_path: Path) -> None:
    write(tmp_path / "a.png", solid(RED)), write(tmp_path / "b.png", solid(BLUE))
    lines = [{"file_name": "a.png", "captions": ["red", "crimson"]}, {"file_name": "b.png", "captions": []}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert load(tmp_path).train.text == ("red", "crimson", "")


def test_a_table_without_a_known_column_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.png", solid(RED))
    (tmp_path / "metadata.csv").write_text(",file_name,colour\n0,a.png,red,more\n")
    assert "file_name, colour, of which none is known; name labels label" in refusal(tmp_path)
    (tmp_path / "metadata.csv").write_text(",file_name\n0,a.png,more\n")  # says which pictures are meant
    assert len(load(tmp_path).train.x) == 1


@pytest.mark.parametrize("labels", [["0.0", "1.0", "2.0", "10.0", "11.0"], ["-10", "-1", "0", "+2", "1e1"]])
def test_classes_that_are_numbers_are_in_order(labels: list[str], tmp_path: Path) -> None:
    for label in labels:
        write(tmp_path / label / "1.png", solid(RED))
    assert load(tmp_path).classes == tuple(labels)


def test_bad_pictures_are_named_and_the_good_ones_kept(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    bad = {
        "bomb.png": (bomb(), "pixels"),
        "empty.png": (b"", "is empty"),
        "cut.png": (encoded(noise)[:-40], "cannot be decoded"),
        "cut.jpg": (encoded(noise, "JPEG")[:-60], "cannot be decoded"),
        "large.png": (bomb(10_000, 8_000), "at most 64 million"),
        "notes.txt": (b"hello", "is not a PNG"),
        "text.jpg": (b"hello", "is not a PNG"),
        "tiff.png": (encoded(noise, "TIFF"), "is not a PNG"),
    }
    for name, (content, _) in bad.items():
        write(tmp_path / "x" / name, content)
    for i in range(5):
        write(tmp_path / "x" / f"good{i}.png", solid((i, i, 0)))
    write(tmp_path / ".hidden.png", b"")
    data = load(tmp_path)
    assert len(data.train.x) == 5
    assert {Path(s.name).name for s in data.skipped} == set(bad)
    for skipped in data.skipped:
        assert bad[Path(skipped.name).name][1] in skipped.reason, skipped


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize(("number", "code"), [(errno.EACCES, 2), (errno.EIO, 74), (errno.ESTALE, 74)])
def test_what_the_system_withholds_is_not_called_damaged(
    number: int,
    code: int,
    archived: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for i in range(4):
        write(tmp_path / "some" / f"{i}.png", solid((i, 0, 0)))
    if archived:
        shutil.make_archive(str(tmp_path / "some"), "zip", tmp_path / "some")
    source = tmp_path / ("some.zip" if archived else "some")
    kind: Any = zipfile.ZipFile if archived else Path
    way = "read" if archived else "read_bytes"
    real = getattr(kind, way)

    def withheld(*given: Any) -> bytes:
        if "2.png" in str(given):
            raise OSError(number, os.strerror(number))
        return real(*given)  # type: ignore[no-any-return]

    with monkeypatch.context() as patch:
        patch.setattr(kind, way, withheld)
        for words in (["pack", str(source)], ["check", str(source)], ["pack", str(source), "--out", f"{tmp_path}/out"]):
            with pytest.raises(SystemExit) as exit:
                cli.main(["data", *words])
            said = capsys.readouterr().err
            assert exit.value.code == code and "some" in said and "2.png" in said, said
    assert not (tmp_path / "out").exists() and len(packed(source).train.x) == 4  # once it can be read


def test_damaged_bytes_decode_or_are_refused() -> None:
    rng = random.Random(0)
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    whole = [encoded(image, kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF")]
    for _ in range(400):
        data = bytearray(rng.choice(whole))
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            picture = read(bytes(data[: rng.choice([len(data), rng.randrange(len(data))])]), size=8, channels=3)
        except Unreadable as why:
            assert str(why) and "\n" not in str(why)
        else:
            assert picture.shape == (3, 8, 8) and picture.dtype == np.uint8


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (solid(77, mode="L"), [77]),
        (solid(1, mode="1"), [255]),
        (solid((10, 20, 30)), [10, 20, 30]),
        (solid((0, 0), mode="LA"), [255]),
        (solid((255, 0, 0, 0), mode="RGBA"), [255, 255, 255]),
        (solid((255, 0, 0, 128), mode="RGBA"), [255, 127, 127]),
        (solid(GREEN).convert("P"), [0, 255, 0]),
        (Image.fromarray(np.full((8, 8), 257 * 91, dtype=np.uint16)), [91]),
    ],
    ids=["L", "1", "RGB", "LA", "clear", "half-clear", "P", "16-bit"],
)
def test_every_mode_is_laid_on_white_in_eight_bits(image: Image.Image, expected: list[int]) -> None:
    assert read(encoded(image))[:, 4, 4].tolist() == expected


def test_cmyk_orientation_and_animation() -> None:
    ink = read(encoded(solid((255, 0, 0, 0), mode="CMYK"), "JPEG", quality=100))[:, 4, 4]  # cyan ink only
    assert ink[0] < 5 and ink[1] > 200 and ink[2] > 200
    sideways = Image.new("RGB", (8, 4))
    sideways.paste(RED, (0, 0, 4, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to stand upright: the left is above
    upright = read(encoded(sideways, exif=exif))
    assert upright.shape == (3, 8, 4) and upright[:, 0, 0].tolist() == list(RED) and upright[:, 7, 0].sum() == 0
    frames = [solid(RED), solid(BLUE)]
    assert read(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))[:, 0, 0].tolist() == list(RED)


def test_size_covers_and_cuts_the_middle(tmp_path: Path) -> None:
    flag = Image.new("RGB", (96, 32))
    for i, colour in enumerate((RED, GREEN, BLUE)):
        flag.paste(colour, (32 * i, 0, 32 * i + 32, 32))
    for i in range(2):
        write(tmp_path / f"{i}.png", flag.resize((96 * (i + 1), 32 * (i + 1)), Image.Resampling.NEAREST))
    assert "size=32" in refusal(tmp_path) and "0.png is 96 x 32" in refusal(tmp_path)
    x = load(tmp_path, size=16).train.x
    assert x.shape == (2, 3, 16, 16) and (x[:, :, :, 3:-3] == torch.tensor(GREEN).view(3, 1, 1)).all()
    assert load(tmp_path, size=40, channels=1).shape == (1, 40, 40)


def test_grey_among_colour_is_colour(tmp_path: Path) -> None:
    write(tmp_path / "a.png", solid(9, mode="L"))
    assert load(tmp_path).shape == (1, 8, 8) and load(tmp_path, channels=3).shape == (3, 8, 8)
    write(tmp_path / "b.png", solid(RED))
    assert load(tmp_path).train.x[:, :, 0, 0].tolist() == [[9, 9, 9], [255, 0, 0]]
    assert load(tmp_path, channels=1).shape == (1, 8, 8)


def test_progress_rises_to_the_total(tmp_path: Path) -> None:
    for i in range(40):
        write(tmp_path / f"{i}.png", solid(RED) if i % 9 else b"")
    calls: list[tuple[int, int]] = []
    load(tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls == sorted(calls) and calls[-1] == (40, 40)


def test_bad_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "there is none" in refusal(tmp_path / "empty")
    write(tmp_path / "broken" / "a.png", b"no")
    assert "a.png" in refusal(tmp_path / "broken")
    for content in (b"{", b"[1]\n", b'{"text": "no name"}', b"\xff\xfe"):
        write(tmp_path / "table" / "metadata.jsonl", content)
        assert "metadata.jsonl" in refusal(tmp_path / "table")
    write(tmp_path / "csv" / "metadata.csv", b"name,text\na.png,hello\n")
    assert "file_name" in refusal(tmp_path / "csv")


# parquet and hub --------------------------------------------------------------------------------------------------


def table(n: int = 24, **columns: list[object]) -> object:
    pytest.importorskip("datasets")
    pyarrow = pytest.importorskip("pyarrow")
    pictures = [encoded(solid((i, 0, 0))) for i in range(n)]
    return pyarrow.table({"img": pictures, **columns})


def save(path: Path, arrow: object) -> Path:
    import pyarrow.parquet

    pyarrow.parquet.write_table(arrow, path)
    return path


def test_parquet_columns_are_found_by_name(tmp_path: Path) -> None:
    path = save(tmp_path / "any.parquet", table(label=["b", "a"] * 12, caption=[f"number {i}" for i in range(24)]))
    data = load(path, held_out=0.25)
    assert data.classes == ("a", "b") and data.train.label is not None and data.test is not None
    assert len(data.test.x) == 6 and data.train.text is not None
    for split in (data.train, data.test):
        assert split.text is not None and split.label is not None
        value = split.x[:, 0, 0, 0].long()
        assert split.text == tuple(f"number {i}" for i in value.tolist()) and torch.equal(split.label, 1 - value % 2)


def test_parquet_columns_are_found_by_type_and_damaged_rows_named(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = {"photo": [{"bytes": encoded(solid(RED)), "path": None}] * 5, "kind": [0, 1, 2, -1, 1]}
    rows["photo"] = [*rows["photo"][:2], {"bytes": b"junk", "path": None}, rows["photo"][0], None]
    features = datasets.Features(photo=datasets.Image(), kind=datasets.ClassLabel(names=["x", "y", "z"]))
    raw = datasets.Features(photo={"bytes": datasets.Value("binary"), "path": datasets.Value("string")})
    raw["kind"] = datasets.Value("int64")
    arrow = datasets.Dataset.from_dict(rows, features=raw).data.table
    for half in ("train", "test"):
        save(tmp_path / f"{half}-0.parquet", arrow.replace_schema_metadata(features.arrow_schema.metadata))
    data = load(tmp_path)
    assert data.classes == ("x", "y", "z") and data.test is not None and data.test.label is not None
    assert data.test.label.tolist() == [0, 1]
    assert [skipped.name for skipped in data.skipped] == [f"{h} row {i}" for h in ("train", "test") for i in (2, 3, 4)]
    assert "-1" in data.skipped[1].reason and data.skipped[2].reason == "is missing"


@pytest.mark.parametrize("held", ["test", "validation", "valid", "val"])
def test_parquet_that_is_in_neither_half_is_named(held: str, tmp_path: Path) -> None:
    for half, label in (("train", -1), (held, 2), ("valley", 10)):
        save(tmp_path / f"{half}-0.parquet", table(4, label=[label, 3, 3, 3]))
    data = load(tmp_path)
    assert data.test is not None and len(data.test.x) == len(data.train.x) == 4
    assert data.classes == ("-1", "2", "3") and [skipped.name for skipped in data.skipped] == ["valley-0.parquet"]
    (tmp_path / "train-0.parquet").unlink(), (tmp_path / "valley-0.parquet").unlink()
    assert load(tmp_path).test is None  # a held-out half alone is all there is


def test_each_caption_of_a_parquet_row_is_a_sample(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    data = load(save(tmp_path / "lists.parquet", table(3, captions=[["one", "two"], [], ["three"]])))
    assert data.train.text == ("one", "two", "", "three")
    assert data.train.x[:, 0, 0, 0].tolist() == [0, 0, 1, 2]
    large = pyarrow.array(["one", None], pyarrow.large_string())  # as polars writes them
    assert load(save(tmp_path / "large.parquet", table(2, prompt=large))).train.text == ("one", "")


def test_a_picture_is_held_out_with_all_of_its_captions(tmp_path: Path) -> None:
    """Wherever its lines stand in the table; and where each has one caption, the same are held out as ever."""
    pictures = [f"{i:02d}.png" for i in range(40)]
    for i, name in enumerate(pictures):
        write(tmp_path / name, solid((i, 0, 0)))

    def halves(captions: int) -> tuple[list[int], list[int]]:
        lines = [f"{name},{caption}" for caption in range(captions) for name in pictures]
        (tmp_path / "metadata.csv").write_text("\n".join(["file_name,text", *lines]))
        data = load(tmp_path, held_out=0.2)
        assert data.test is not None and len(data.train.x) + len(data.test.x) == 40 * captions
        train, test = (half.x[:, 0, 0, 0].tolist() for half in (data.train, data.test))
        return train, test

    once, thrice = halves(1), halves(3)
    assert [sorted(half) for half in thrice] == [sorted(3 * half) for half in once] and len(once[1]) == 8
    plain = hold_out(Split(torch.arange(40)), 0.2)
    assert plain[1] is not None and once == (plain[0].x.tolist(), plain[1].x.tolist())


def test_bad_parquet_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    pyarrow = pytest.importorskip("pyarrow")
    assert "parquet" in refusal(write(tmp_path / "broken.parquet", b"PAR1 no"))
    path = save(tmp_path / "numbers.parquet", pyarrow.table({"price": [1, 2]}))
    assert "price" in refusal(path) and "image" in refusal(path)
    assert "img" in refusal(save(tmp_path / "words.parquet", pyarrow.table({"img": [1, 2]})))


def test_hub_names_go_to_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    asked: list[str] = []

    def load_dataset(name: str) -> object:
        asked.append(name)
        halves = {"train": table(24, label=[0, 1] * 12), "validation": table(4, label=[1, 0, 1, 0])}
        halves["extra"] = table(3, label=[0, 1, 0])
        return datasets.DatasetDict({half: datasets.Dataset(arrow) for half, arrow in halves.items()})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = load("hub:someone/something")
    assert asked == ["someone/something"] and data.test is not None
    assert (len(data.train.x), len(data.test.x), data.classes) == (24, 4, ("0", "1"))
    assert [(name, "rows: 3" in why) for name, why in data.skipped] == [("extra", True)]

    def fail(name: str) -> object:
        raise RuntimeError("no route to host\nand more")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    assert "no route to host" in refusal("hub:mnist")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pellucid[data]" in refusal("hub:mnist")
    assert "pellucid[data]" in refusal(write(tmp_path / "some.parquet", b""))
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert "pellucid[demo]" in refusal("digits")


def shared(name: str) -> Path:
    pytest.importorskip("datasets")
    if not (SHARED / name).exists():
        pytest.skip(f"{name} is not in {SHARED}; PELLUCID_DATA names the folder that holds it")
    return SHARED / name


def test_cifar10() -> None:
    data = load(shared("cifar10-jpeg/test.parquet"))
    assert data.shape == (3, 32, 32) and len(data.classes) == 10 and not data.skipped
    assert data.test is not None and data.test.label is not None
    assert data.test.label.bincount().tolist() == [100] * 10  # a tenth of every class
    assert 0.45 < data.std < 0.55


def test_emoji_have_their_names() -> None:
    data = load(shared("noto-emoji-64"), size=16)
    assert data.test is not None and (len(data.train.x), len(data.test.x)) == (3114, 300)
    assert data.shape == (3, 16, 16) and data.train.text is not None and "alien" in data.train.text


# arrays -----------------------------------------------------------------------------------------------------------


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path / "it.npz", **arrays)
    return path / "it.npz"


def test_arrays_of_pictures_in_every_layout(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
    last = load(npz(tmp_path, arr_0=x, arr_1=np.arange(6)))
    first = load(npz(tmp_path, images=x.transpose(0, 3, 1, 2), labels=np.arange(6)))
    assert torch.equal(last.train.x, first.train.x) and last.shape == (3, 5, 4)
    assert np.array_equal(last.train.x[2, 1].numpy(), x[2, :, :, 1]) and last.classes == tuple("012345")
    assert load(npz(tmp_path, x=x[..., 0])).shape == (1, 5, 4)


def test_arrays_of_points_and_their_own_test_half(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).normal(size=(40, 7)), np.arange(40) % 4
    data = load(npz(tmp_path, x_train=x, y_train=y, x_test=x[:5], y_test=y[:5]))
    assert data.test is not None and len(data.train.x) == 40 and torch.equal(data.test.x, data.train.x[:5])
    assert data.train.x.dtype == torch.float32 and data.shape == (7,)
    assert len(load(npz(tmp_path, x=x), held_out=0.2).train.x) == 32


@pytest.mark.parametrize(
    ("arrays", "word"),
    [
        ({"pictures": np.zeros((3, 2))}, "arr_0"),
        ({"x": np.zeros((0, 2))}, "shape"),
        ({"x": np.zeros(5)}, "shape"),
        ({"x": np.full((5, 2), np.nan)}, "10 values that are not finite"),
        ({"x": np.full((5, 2), 1e300)}, "not finite"),
        ({"x": np.zeros((5, 2), dtype=np.int64)}, "int64"),
        ({"x": np.zeros((5, 8, 8, 7), dtype=np.uint8)}, "c 1 or 3"),
        ({"x": np.array([{}, {}], dtype=object)}, "cannot be read"),
        ({"x": np.zeros((5, 2)), "y": np.zeros(4, dtype=int)}, "5 labels"),
        ({"x": np.zeros((5, 2)), "y": np.zeros(5)}, "labels"),
        ({"x": np.zeros((5, 2)), "y": np.full(5, -1)}, "from 0"),
    ],
)
def test_bad_arrays_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], word: str) -> None:
    assert word in refusal(npz(tmp_path, **arrays))


POINTS, PIXELS, LABELS = np.zeros((5, 7)), np.zeros((5, 8, 8), np.uint8), np.zeros(5, int)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": POINTS, "x_test": POINTS[:, :6]}, ["x_test in", "is float32 [6]", "x is float32 [7]"]),
        ({"x": PIXELS, "x_test": PIXELS / 255.0}, ["is float32 [8, 8]", "x is uint8 [1, 8, 8]"]),
        ({"x": POINTS, "y": LABELS, "x_test": POINTS}, ["float32 [7] without labels", "x is float32 [7] with labels"]),
        ({"images": POINTS, "x_test": POINTS, "y_test": LABELS}, ["[7] with labels", "images is float32 [7] without"]),
    ],
)
def test_held_out_arrays_are_like_the_others(tmp_path: Path, arrays: dict[str, np.ndarray], words: list[str]) -> None:
    said = refusal(npz(tmp_path, **arrays))
    assert all(word in said for word in words)


def test_objects_in_arrays_are_refused_without_advice_to_open_them(tmp_path: Path) -> None:
    said = refusal(npz(tmp_path, x=np.array([{}, {}], dtype=object)))
    assert "pickle" not in said and "arrays of numbers, x and perhaps y" in said and "without objects" in said


def test_broken_npz_files_are_refused(tmp_path: Path) -> None:
    whole = npz(tmp_path, x=np.zeros((50, 2))).read_bytes()
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((3, 2)))
    for i, content in enumerate((b"", b"junk", whole[:-30], whole[:60], buffer.getvalue(), b"\x80\x04K\x01.")):
        assert "savez" in refusal(write(tmp_path / f"{i}.npz", content))


# the door ---------------------------------------------------------------------------------------------------------


def test_unknown_sources_are_refused(tmp_path: Path) -> None:
    assert "did you mean 'digits'" in refusal("digit")
    assert "did you mean 'swissroll'" in refusal("swisroll")
    assert "there is no" in refusal(tmp_path / "nowhere")
    assert "expected a folder" in refusal(write(tmp_path / "a.mp4", b"film"))


@pytest.mark.parametrize("options", [{"size": 0}, {"channels": 2}, {"held_out": 1.0}, {"held_out": -0.1}, {"seed": -1}])
def test_bad_options_are_refused(options: dict[str, float]) -> None:
    assert next(iter(options)) in refusal("digits", **options)


def test_only_picture_files_are_converted(tmp_path: Path) -> None:
    assert "(3, 8, 8)" in refusal("digits", channels=3)
    assert "(1, 16, 16)" in refusal("digits", size=16)
    assert load("digits", size=8, channels=1).shape == (1, 8, 8)


def test_strange_tables_and_labels_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a/1.png", solid(RED))
    (tmp_path / "a/metadata.csv").write_text("file_name,label\n/etc/passwd,x\n1.png,y\n")
    assert len(load(tmp_path / "a").train.x) == 1
    (tmp_path / "a/metadata.csv").unlink()
    (tmp_path / "a/metadata.jsonl").write_text("[" * 100_000)
    assert "cannot be read" in refusal(tmp_path / "a")
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 2), np.float32), y=np.array([0, 10**8]))
    assert "goes up to 100000000 for 2 samples" in refusal(tmp_path / "x.npz")
