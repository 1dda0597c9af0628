"""The packed store: it holds what decoding gives, is found again, notices every change, and is not held in memory."""

import io
import json
import os
import random
import resource
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pellucid import cli, files
from pellucid.config import Recipe
from pellucid.data import Dataset, Options, check, load, pack, packed, store
from pellucid.errors import PellucidError


def picture(i: int, channels: int = 3, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(i).integers(0, 256, (6, 5, 3)[: 2 + channels // 3], dtype=np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def filled(folder: Path, n: int = 30) -> Path:
    """Pictures of two classes, grey ones, a damaged one and a stranger among them."""
    for i in range(n):
        path = folder / "ab"[i % 2] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(i, 1 if i % 5 == 0 else 3)[: 60 if i == 7 else None])
    (folder / "a" / "notes.txt").write_text("hello")
    return folder


def zipped(folder: Path, top: str = "") -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, Path(top) / file.relative_to(folder))
        archive.writestr("__MACOSX/._x", b"")
    return path


def same(one: Dataset, other: Dataset) -> None:
    assert one.classes == other.classes and one.skipped == other.skipped and one.shape == other.shape
    assert (one.mean, one.std) == (other.mean, other.std)
    for a, b in ((one.train, other.train), (one.test, other.test)):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert torch.equal(a.x, b.x) and a.text == b.text
            assert (a.label is None) == (b.label is None) and (a.label is None or torch.equal(a.label, b.label))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("pictures") / "some")


@pytest.mark.parametrize("options", [{}, {"channels": 1}, {"size": 4, "held_out": 0.3, "seed": 2}, {"held_out": 0.0}])
def test_a_store_is_what_decoding_gives(pictures: Path, options: dict[str, float]) -> None:
    real, once, again = load(pictures, **options), packed(pictures, **options), packed(pictures, **options)  # type: ignore[arg-type]
    same(real, once), same(real, again)
    assert {s.name for s in once.skipped} == {"b/07.png", "a/notes.txt"}
    index = torch.tensor([3, 0, 3])
    assert torch.equal(once.batch(index)[0], real.batch(index)[0])


def test_captions_and_halves_are_kept(tmp_path: Path) -> None:
    for half, n in (("train", 12), ("test", 3)):
        (tmp_path / half).mkdir()
        lines = [{"file_name": f"{i}.png", "text": f'{half} "{i}"\n', "label": i % 3} for i in range(n)]
        (tmp_path / half / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        for i in range(n):
            (tmp_path / half / f"{i}.png").write_bytes(picture(i))
    same(load(tmp_path), packed(tmp_path))
    assert packed(tmp_path).test.text == tuple(f'test "{i}"\n' for i in range(3))  # type: ignore[union-attr]


def test_a_parquet_file_is_packed(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pytest.importorskip("datasets")
    rows = {"image": [picture(i, kind="JPEG") for i in range(24)], "label": [i % 2 for i in range(24)]}
    parquet.write_table(pyarrow.table(rows), tmp_path / "it.parquet")
    same(load(tmp_path / "it.parquet"), packed(tmp_path / "it.parquet"))


@pytest.mark.parametrize("top", ["", "some"])
def test_an_archive_is_the_folder_in_it(tmp_path: Path, top: str) -> None:
    folder = filled(tmp_path / "some")
    same(load(folder), load(zipped(folder, top)))
    same(load(folder), packed(zipped(folder, top)))


def archived(path: Path, *names: str, table: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for i, name in enumerate(names):
            archive.writestr(name, picture(i) if name.endswith(".png") else table)
    return path


def test_a_stray_file_does_not_hide_the_classes(tmp_path: Path) -> None:
    pictures = ("pets/cat/1.png", "pets/dog/2.png")
    assert load(archived(tmp_path / "half.zip", "train/cat/1.png", "train/dog/2.png")).classes == ("cat", "dog")
    for i, stray in enumerate(((), ("pets/.DS_Store",), ("pets/read.me",), (".DS_Store",), (".",))):
        assert load(archived(tmp_path / f"{i}.zip", *pictures, *stray)).classes == ("cat", "dog"), stray


def test_a_table_in_the_one_folder_of_an_archive_is_read(tmp_path: Path) -> None:
    table = "file_name,text\n0.png,a cat\n1.png,a dog\n"
    path = archived(tmp_path / "it.zip", "pets/0.png", "pets/1.png", "pets/metadata.csv", table=table)
    assert load(path).train.text == ("a cat", "a dog")


def test_damaged_archives_are_refused_or_named(tmp_path: Path) -> None:
    whole = zipped(filled(tmp_path / "some")).read_bytes()
    damaged = tmp_path / "damaged.zip"
    rng = random.Random(0)
    for _ in range(60):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        damaged.write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        try:
            assert load(damaged, size=4).shape[1:] == (4, 4)
        except PellucidError as error:
            assert "\n" not in str(error)


def test_who_comes_while_others_pack_waits_and_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, real, calls = filled(tmp_path / "some"), store.pack, []
    monkeypatch.setattr(store, "pack", lambda *given: (calls.append(given), real(*given))[1])
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: packed(folder), range(4)))
    assert len(calls) == 1
    for one in found:
        same(one, load(folder))


def test_what_is_packed_is_opened_while_others_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, other, real = filled(tmp_path / "some"), filled(tmp_path / "other"), store.pack
    packed(folder)
    packing, done = threading.Event(), threading.Event()

    def slow(*given: Any) -> Dataset:
        packing.set()
        assert done.wait(10)
        return real(*given)

    with ThreadPoolExecutor(4) as pool:
        monkeypatch.setattr(store, "pack", slow)
        once = pool.submit(packed, other)
        assert packing.wait(10)
        assert pool.submit(packed, folder).result(10).classes == ("a", "b")
        monkeypatch.setattr(store, "pack", real)
        assert pool.submit(packed, folder, size=3).result(10).shape == (3, 3, 3)
        with pytest.warns(UserWarning, match="another process packs"):
            again = pool.submit(packed, other)
            with pytest.raises(TimeoutError):
                again.result(0.1)
            done.set()
            same(once.result(10), again.result(10))


@pytest.mark.parametrize("way", [packed, pack])
def test_what_a_killed_process_left_half_packed_is_cleared(
    way: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    folder = filled(tmp_path / "some")
    names = store.place(folder, Options()).name, "old-1", "new-2"
    left = [files.cache("data") / f"{files.PARTIAL}{name}-77" for name in names]
    for path in left:
        path.mkdir(parents=True)
        (path / "loose").write_bytes(b"half")
    with store.turn(files.cache("data") / "new-2"):  # which clears its own; another process is at it
        left[-1].mkdir()
        way(folder)
        assert [path.exists() for path in left] == [False, False, True]


def test_what_a_killed_process_left_beside_its_store_is_cleared(pictures: Path, tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    ended = [f"{files.PARTIAL}it-{dead.pid}", f"{files.PARTIAL}it-{dead.pid}-gone"]
    others = [f"{files.PARTIAL}it-{os.getppid()}", f"{files.PARTIAL}it-1-{dead.pid}", f"{files.PARTIAL}it-gone"]
    for name in (*ended, *others):
        (tmp_path / name).mkdir()
        (tmp_path / name / "loose").write_bytes(b"half")
    with files.alone(tmp_path / ended[0]):  # a process of another machine that has this number
        pack(pictures, tmp_path / "it")
    assert sorted(f.name for f in tmp_path.iterdir()) == sorted([ended[0], *others, "it"])
    pack(pictures, tmp_path / "it")
    assert sorted(f.name for f in tmp_path.iterdir()) == sorted([*others, "it"])


def test_what_is_being_packed_is_held(tmp_path: Path) -> None:
    with files.replaced(tmp_path / "it", "store", ".*") as partial:
        assert not files.is_free(partial)
    assert files.is_free(tmp_path / "it")


def test_a_broken_store_in_the_cache_is_packed_again(tmp_path: Path) -> None:
    folder = filled(tmp_path / "some")
    packed(folder)
    place = max(files.cache("data").glob("some-*"), key=lambda path: path.stat().st_mtime_ns)
    (place / "train.npy").write_bytes(b"")
    same(packed(folder), load(folder))


def test_a_cache_that_cannot_be_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "file"))
    with pytest.raises(PellucidError, match="PELLUCID_CACHE"):
        packed(filled(tmp_path / "some"))


def test_a_source_that_changes_is_packed_anew(tmp_path: Path) -> None:
    folder = filled(tmp_path / "some")
    first = packed(folder)
    (folder / "a" / "00.png").write_bytes(picture(99))
    (folder / "a" / "98.png").write_bytes(picture(98))
    second = packed(folder)
    same(second, load(folder))
    assert len(second.train.x) + len(second.test.x) == len(first.train.x) + len(first.test.x) + 1  # type: ignore[union-attr]


def test_a_store_has_the_place_it_was_asked_to_have(pictures: Path, tmp_path: Path) -> None:
    place = pack(pictures, tmp_path / "store", size=4)
    same(load(place), load(pictures, size=4)), same(packed(place), load(place))
    assert sorted(f.name for f in tmp_path.iterdir()) == ["store"]
    assert Recipe.load("pictures", [f"data.source={place}", "data.size=4"]).read().shape == (3, 4, 4)
    with pytest.raises(PellucidError, match=r"shape \(3, 4, 4\), not \(3, 8, 8\)"):
        load(place, size=8)
    with pytest.raises(PellucidError, match="is no store"):
        pack(pictures, pictures)


def test_nothing_is_there_where_packing_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = filled(tmp_path / "some")
    (folder / "a" / "zz.png").write_bytes(_wide())
    with pytest.raises(PellucidError, match="zz.png is 9 x 2"):
        pack(folder, tmp_path / "store")

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    (folder / "a" / "zz.png").unlink()
    monkeypatch.setattr(files, "flush", full)
    with pytest.raises(OSError, match="No space left"):
        pack(folder, tmp_path / "store")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["some"]


def _wide() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (9, 2)).save(file, "PNG")
    return file.getvalue()


def test_every_changed_byte_is_found(pictures: Path, tmp_path: Path) -> None:
    place = pack(pictures, tmp_path / "store")
    assert check(place) == (4, [])
    for file in sorted(place.iterdir()):
        whole = file.read_bytes()
        for at in random.Random(file.name).sample(range(len(whole)), min(40, len(whole))):
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
            if file.name == store.MANIFEST:
                with pytest.raises(PellucidError, match=r"damaged \((?!Pellucid)|^\S+ has store format"):
                    check(place)
            else:
                assert [name for name, _ in check(place)[1]] == [file.name]
            file.write_bytes(whole[:at])
            with pytest.raises(PellucidError, match="damaged"):
                load(place)
        file.write_bytes(whole)
    assert check(place) == (4, [])


def test_a_store_of_another_format_is_not_called_damaged(pictures: Path, tmp_path: Path) -> None:
    place = pack(pictures, tmp_path / "store")
    about = json.loads((place / store.MANIFEST).read_text())
    (place / store.MANIFEST).write_bytes(files.seal({**about, "format": 9}))
    with pytest.raises(PellucidError, match=r"^\S+ has store format 9, this pellucid reads \d+; pack it again.$"):
        load(place)


def test_a_store_may_be_larger_than_memory(pictures: Path, tmp_path: Path) -> None:
    place = pack(pictures, tmp_path / "store", size=32, channels=3)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    n = 2 * memory // (3 * 32 * 32)
    with open(place / "train.npy", "wb") as file:  # with a hole in it: the disk holds its last picture alone
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (n, 3, 32, 32)})
        try:
            file.seek(3 * 32 * 32 * (n - 1), os.SEEK_CUR)
        except OSError:
            pytest.skip("this file system has no files of that size")
        file.write(bytes([255]) * 3 * 32 * 32)
    about = json.loads((place / store.MANIFEST).read_text())
    about["files"]["train.npy"]["bytes"] = (place / "train.npy").stat().st_size
    del about["files"]["train.label.npy"]
    (place / store.MANIFEST).write_bytes(files.seal(about))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = load(place)
    x, _ = data.batch(torch.tensor([0, n // 2, n - 1]))
    assert data.std > 0 and len(data.train.x) == n
    assert x.flatten(1).mean(1).tolist() == [-1, -1, 1]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_damaged_files_are_named_by_the_command(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stopped:
            cli.main(["data", *arguments])
        return int(stopped.value.code or 0), capsys.readouterr().out

    code, said = answer("check", str(pictures))
    assert code == 1 and [line.split(":")[0] for line in said.splitlines()] == ["a/notes.txt", "b/07.png"]
    code, said = answer("check", str(pictures), "--json")
    assert code == 1 and json.loads(said)["checked"] == 31
    assert [row["name"] for row in json.loads(said)["damaged"]] == ["a/notes.txt", "b/07.png"]
    code, said = answer("pack", str(pictures), "--out", str(tmp_path / "store"), "--json")
    assert code == 0 and (json.loads(said)["train"], json.loads(said)["left_out"]) == (26, 2)
    assert answer("check", str(tmp_path / "store")) == (0, f"{tmp_path / 'store'}: all 4 are whole\n")
    assert answer("check", "digits")[0] == 2
