"""Lists the files that this interpreter needs; run once by the main process."""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import sys
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES

_SKIPPED = ("_tkinter", "_test", "_xxtestfuzz", "xxlimited")
"""Beginnings of the names of extension modules that are not loaded: windows, and tests of Python itself."""

_INDEX = "/etc/ld.so.cache"  # where the loader finds libraries in folders that are not its default ones


class _Object(ctypes.Structure):
    """Beginning of `struct dl_phdr_info`."""

    _fields_ = (("address", ctypes.c_void_p), ("name", ctypes.c_char_p))


def library_folders() -> list[str]:
    """Returns the folders of the standard library, without folders inside others."""
    found = sorted({os.path.abspath(path) for path in sys.path if os.path.isdir(path)} - {_own_folder()})
    return [path for path in found if not any(path.startswith(f"{other}/") for other in found)]


def loaded_libraries() -> list[str]:
    """Returns the C libraries of this process, under the names with which the loader finds them."""
    names: list[str] = []
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Object), ctypes.c_size_t, ctypes.c_void_p)

    def add(info: ctypes._Pointer[_Object], *_: object) -> int:
        names.append(os.fsdecode(info.contents.name or b""))
        return 0

    ctypes.CDLL(None).dl_iterate_phdr(kind(add), None)
    return sorted({os.path.normpath(name) for name in names if name.startswith("/")})


def load_extensions() -> None:
    """Loads all extension modules of the standard library, and with them the libraries that they need."""
    for name in _extensions():
        try:
            importlib.import_module(name)
        except ImportError:  # it lacks a library here, and would in the sandbox
            continue
    try:
        ctypes.CDLL("libgcc_s.so.1")  # the C library loads it when a thread is cancelled
    except OSError:
        return


def _extensions() -> Iterator[str]:
    for folder in sys.path:
        for file in os.listdir(folder) if os.path.isdir(folder) and folder != _own_folder() else ():
            if file.endswith(tuple(EXTENSION_SUFFIXES)) and not file.startswith(_SKIPPED):
                yield file.partition(".")[0]


def _own_folder() -> str:
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main() -> None:
    """Prints a JSON list: folders of the standard library, C libraries outside them, the loader's index."""
    load_extensions()
    folders = library_folders()
    extensions = tuple(f"{folder}/" for folder in folders)
    libraries = [path for path in loaded_libraries() if not path.startswith(extensions)]
    index = [path for path in (_INDEX,) if os.path.isfile(path)]
    json.dump([*folders, *libraries, *index], sys.stdout)
