"""The code that a factory is made of: found and read, never run.

Reading a space must not run the code that it names. So modules are looked up part by part, because Python's own lookup
would run the packages around them.
"""

import ast
import hashlib
import importlib.util
import os
import sys
import sysconfig
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, PathFinder
from pathlib import Path

# Hashes of source files by their path from the folder that is imported from; versions of packages by their name.
Code = dict[str, str]

# Every network uses torch, whose version is part of no key; for changes of lmc-tune there is SCHEMA_VERSION.
_OF_EVERY_PAIR = {"torch", "lmc_tune"}
_SITES = {"site-packages", "dist-packages"}
_FILES = (".py", *EXTENSION_SUFFIXES)


def folders_beside(space: Path) -> tuple[str, ...]:
    """The folders in which a space's factories are looked for first: that of its file, then the current folder."""
    return tuple(dict.fromkeys(map(str, (space.absolute().parent, Path.cwd()))))


def code_of(factory: str, folders: Sequence[str] = ()) -> Code:
    """Hashes of a factory's module and of its author's modules that it imports, and versions of installed packages.

    Imports are found anywhere in the text, except those whose names are computed at run time. Modules that cannot be
    found or read are left out, because whoever imports them reports that; so are Python's own modules and torch.

    Args:
        factory: ``package.module:function``.
        folders: looked into before ``sys.path``.
    """
    PathFinder.invalidate_caches()  # a file written a moment ago is seen
    path = [*folders, *sys.path]
    code: Code = {}
    left, seen = [factory.partition(":")[0]], set[str]()
    while left:
        parts = left.pop().split(".")
        for end in range(1, len(parts) + 1):  # an import runs the packages around a module too
            module = ".".join(parts[:end])
            if module in seen:
                continue
            seen.add(module)
            found = _find(module, path)
            if found is None or parts[0] in _OF_EVERY_PAIR:
                break
            if versions := _versions(parts[0], path):
                code |= versions
                break
            if found.origin and not _is_pythons_own(found):
                left += _read(module, found, code)
    return dict(sorted(code.items()))


def changed(one: Code, other: Code) -> list[str]:
    """Names of files and packages in which two codes differ."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def has_packages(code: Code) -> bool:
    """Whether installed packages are part of it."""
    return not all(name.endswith(_FILES) for name in code)


def is_of_user(file: str) -> bool:
    """Whether a source file is neither lmc-tune's nor installed nor Python's own."""
    folder, ours = os.path.realpath(file), Path(__file__).parents[1]
    if not Path(file).is_file() or Path(folder).is_relative_to(ours):
        return False
    return not _installed(Path(folder)) and not Path(folder).is_relative_to(_pythons())


def _find(module: str, path: Sequence[str]) -> ModuleSpec | None:
    top, *rest = module.split(".")
    found = PathFinder.find_spec(top, path) or _find_otherwise(top)
    for name in rest:
        if found is None or found.submodule_search_locations is None:
            return None
        # By its last name: for a dotted one a namespace package would look for its parent among imported modules.
        found = PathFinder.find_spec(name, list(found.submodule_search_locations))
    return found


def _find_otherwise(top: str) -> ModuleSpec | None:
    """A built-in module, or one installed as a link to its source, which may have its own finder."""
    try:
        return importlib.util.find_spec(top)
    except (ValueError, ImportError):
        return None


def _location(found: ModuleSpec) -> Path:
    folders = list(found.submodule_search_locations or ())
    return Path(found.origin or (folders[0] if folders else ""))


def _versions(top: str, path: Sequence[str]) -> Code:
    """Versions of the packages that a top-level module belongs to; empty if no package installed it.

    Without a local part: ``+cpu`` and ``+cu128`` are one version on two machines.
    """
    found = _find(top, path)
    if found is None or not _installed(_location(found)):
        return {}
    file = _location(found)
    folder = next(folder for folder in file.parents if folder.name in _SITES)
    return {name: version.partition("+")[0] for name, version in _packages(folder).get(top, ())}


@cache
def _packages(folder: Path) -> dict[str, list[tuple[str, str]]]:
    """Names and versions of all that is installed in a folder, by top-level module.

    The standard library's ``packages_distributions`` overlooks compiled modules that are not inside a package's folder.
    """
    packages: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for one in metadata.distributions(path=[str(folder)]):
        for top in {file.parts[0].partition(".")[0] for file in one.files or ()}:
            packages[top].append((one.name, one.version))
    return packages


def _installed(file: Path) -> bool:
    return not _SITES.isdisjoint(file.parts)


def _is_pythons_own(found: ModuleSpec) -> bool:
    if not found.has_location:  # built in, or frozen
        return True
    file = Path(os.path.realpath(_location(found)))
    return file.is_relative_to(_pythons()) and not _installed(file)


def _pythons() -> str:
    return os.path.realpath(sysconfig.get_path("stdlib"))


def _read(module: str, found: ModuleSpec, code: Code) -> list[str]:
    """Put a file's hash into ``code``, and return what it imports."""
    file = _location(found)
    try:
        source = file.read_bytes().replace(b"\r\n", b"\n")
    except OSError:
        return []
    package = module if found.submodule_search_locations is not None else module.rpartition(".")[0]
    name = "/".join([*package.split("."), file.name] if package else [file.name])
    code[name] = hashlib.blake2b(source, digest_size=8).hexdigest()
    return list(_imported(source, package)) if file.suffix == ".py" else []


def _imported(source: bytes, package: str) -> Iterator[str]:
    """Every module that a source text may import, and names that may be modules."""
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            try:
                base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            except ImportError:
                continue
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names if alias.name != "*"))
