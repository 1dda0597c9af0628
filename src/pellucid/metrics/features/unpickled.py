"""The tensors of a file that torch.save wrote, read without unpickling.

Such a file is a program for a stack machine, and its data. The program is read as a list of words (pickletools), and
only those by which a dictionary of tensors is written are followed: a call of the two functions that make one, and a
reference to a storage. Anything else is refused, so that nothing in the file names code that runs.

    since torch 1.6   a zip of  */data.pkl  and  */data/KEY, the bytes of each storage
    before            three programs of no interest, the dictionary, the list of its keys, and of each length and bytes
"""

import io
import pickletools
import zipfile
from collections import OrderedDict
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from ...errors import PellucidError

KINDS = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Storage(NamedTuple):
    """A run of numbers in the file."""

    kind: torch.dtype
    key: str


class View(NamedTuple):
    """A tensor: where in its storage it begins, and its shape and strides there."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Name(NamedTuple):
    """Something that the program calls by name."""

    module: str
    word: str


MARK = object()


def tensors(path: Path) -> dict[str, Tensor]:
    """The state dict in a file."""
    try:
        with open(path, "rb") as file:
            views, data = _zipped(path) if zipfile.is_zipfile(path) else _legacy(file)
        return {str(name): _tensor(view, data) for name, view in views.items() if isinstance(view, View)}
    except (OSError, ValueError, LookupError, AttributeError, TypeError, RuntimeError, zipfile.BadZipFile) as error:
        why = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise PellucidError(f"{path} holds no plain dictionary of tensors ({why}); give its weights.") from None


def _zipped(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        (program,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        root = program.removesuffix("data.pkl") + "data/"
        views = _run(io.BytesIO(archive.read(program)))
        return views, {name.removeprefix(root): archive.read(name) for name in archive.namelist() if root in name}


def _legacy(file: BinaryIO) -> tuple[dict[str, Any], dict[str, bytes]]:
    for _ in ("magic number", "protocol", "system"):
        _run(file)
    views, keys = _run(file), _run(file)
    kinds = {view.storage.key: view.storage.kind for view in views.values() if isinstance(view, View)}
    data = {}
    for key in keys:
        count = int.from_bytes(file.read(8), "little")
        data[key] = file.read(count * kinds[key].itemsize)
    return views, data


def _tensor(view: View, data: dict[str, bytes]) -> Tensor:
    if not prod(view.size):
        return torch.empty(view.size, dtype=view.storage.kind)
    whole = torch.frombuffer(bytearray(data[view.storage.key]), dtype=view.storage.kind)
    last = view.offset + sum((n - 1) * step for n, step in zip(view.size, view.stride, strict=True))
    if not 0 <= view.offset <= last < len(whole):
        raise ValueError("a tensor reaches beyond its storage")
    return whole.as_strided(view.size, view.stride, view.offset).clone()


def _run(file: BinaryIO) -> Any:
    """Follow one program; what is left on its stack."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    argument: Any
    for opcode, argument, _ in pickletools.genops(file):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                stack.append(MARK)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1":
                stack.append(argument)
            case "GLOBAL":
                stack.append(Name(*argument.split(" ")))
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT":
                stack.append({"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}[opcode.name]())
            case "TUPLE":
                stack.append(tuple(_popped(stack)))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                n = int(opcode.name[-1])
                stack[-n:] = [tuple(stack[-n:])]
            case "APPEND" | "APPENDS":
                items = _popped(stack) if opcode.name == "APPENDS" else [stack.pop()]
                stack[-1].extend(items)
            case "SETITEM" | "SETITEMS":
                items = _popped(stack) if opcode.name == "SETITEMS" else [stack.pop(-2), stack.pop()]
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "BINPERSID":
                _, kind, key, *_ = stack.pop()
                stack.append(Storage(KINDS[kind.word], key))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_called(function, arguments))
            case "BUILD":  # the versions of modules, which a dictionary of weights carries along
                stack.pop()
            case other:
                raise ValueError(f"it contains {other}")
    raise ValueError("it ends early")


def _popped(stack: list[Any]) -> list[Any]:
    """All above the last mark."""
    place = len(stack) - 1 - stack[::-1].index(MARK)
    items = stack[place + 1 :]
    del stack[place:]
    return items


def _called(function: Any, arguments: tuple[Any, ...]) -> Any:
    match function:
        case Name("collections", "OrderedDict"):
            return OrderedDict()
        case Name("torch._utils", "_rebuild_tensor_v2"):
            return View(*arguments[:4])
        case Name("torch._utils", "_rebuild_parameter"):
            return arguments[0]
    raise ValueError(f"it calls {function.module}.{function.word}" if isinstance(function, Name) else "it calls")
