"""What a factory is made of: found and read, never run."""

import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from lmc_tune.experiment.sources import changed, code_of, folders_beside, has_packages, is_of_user

RUNS = "raise RuntimeError('this ran')\n"
FILES = {
    "nets.py": "import os, torch\nimport blocks\nfrom package.deep import inner\n",
    "blocks.py": "def build():\n    import late\n",
    "late.py": "",
    "package/__init__.py": "from . import beside\n",
    "package/beside.py": "from .deep.inner import f\nfrom .nowhere import g\nfrom .... import h\n",
    "package/deep/inner.py": "import nets\n",  # package/deep is a namespace, and imports go round in a circle
    "package/not_imported.py": "",
    "also_not.py": "",
}
MADE_OF = ["blocks.py", "late.py", "nets.py", "package/__init__.py", "package/beside.py", "package/deep/inner.py"]


def write(folder: Path, files: dict[str, str]) -> list[str]:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + RUNS)
    return [str(folder)]


def install(site: Path, name: str, version: str, module: str) -> None:
    """As pip lays out a package."""
    (site / module).parent.mkdir(parents=True, exist_ok=True)
    (site / module).write_text(RUNS)
    about = site / f"{name.replace('-', '_')}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (about / "RECORD").write_text(f"{module},,\n")


def test_it_is_the_module_and_all_that_its_author_wrote_and_it_imports(tmp_path: Path) -> None:
    folders, before = write(tmp_path, FILES), set(sys.modules)
    assert list(code_of("nets:build", folders)) == MADE_OF
    assert list(code_of("package.deep.inner:build", folders)) == MADE_OF
    assert list(code_of("late:build", folders)) == ["late.py"]
    assert set(sys.modules) == before


@pytest.mark.parametrize("name", MADE_OF)
def test_every_file_tells_and_tells_of_itself(tmp_path: Path, name: str) -> None:
    folders = write(tmp_path, FILES)
    before = code_of("nets:build", folders)
    path = tmp_path / name
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert code_of("nets:build", folders) == before, "the end of a line is the editor's business"
    path.write_text(path.read_text() + "x = 1\n")
    assert changed(before, code_of("nets:build", folders)) == [name]
    path.unlink()
    assert name in changed(before, code_of("nets:build", folders))


def test_it_is_the_same_wherever_it_lies(tmp_path: Path) -> None:
    one, other = (code_of("nets:build", write(tmp_path / name, FILES)) for name in ("one", "other"))
    assert one == other


def test_the_first_folder_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, last = (write(tmp_path / name, {"same.py": f"{name = }\n"})[0] for name in "abc")
    monkeypatch.syspath_prepend(last)
    alone = [code_of("same:build", [folder]) for folder in (first, second, last)]
    assert len({tuple(code.items()) for code in alone}) == 3
    assert code_of("same:build", [first, second]) == alone[0]
    assert code_of("same:build", [second, first]) == alone[1]
    assert code_of("same:build") == alone[2]


def test_installed_packages_count_by_version_compiled_ones_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site-packages"
    install(site, "a-package", "1.2+cpu", "a_package/__init__.py")
    install(site, "compiled", "3.4", f"compiled_one{EXTENSION_SUFFIXES[0]}")
    (site / "loose.py").write_text(RUNS)
    monkeypatch.syspath_prepend(site)
    folders = write(tmp_path / "own", {"nets.py": "import a_package.deep\nfrom compiled_one import f\nimport loose\n"})
    found = code_of("nets:build", folders)
    assert list(found) == ["a-package", "compiled", "loose.py", "nets.py"]
    assert (found["a-package"], found["compiled"]) == ("1.2", "3.4")
    assert code_of("a_package.deep:build") == {"a-package": "1.2"}
    assert has_packages(found)
    assert not has_packages(code_of("loose:build"))


def test_a_compiled_module_of_ones_own_counts_by_its_bytes(tmp_path: Path) -> None:
    name = f"fast{EXTENSION_SUFFIXES[0]}"
    (tmp_path / name).write_bytes(b"\x7fELF\x00")
    before = code_of("fast:build", [str(tmp_path)])
    assert list(before) == [name]
    (tmp_path / name).write_bytes(b"\x7fELF\x01")
    assert changed(before, code_of("fast:build", [str(tmp_path)])) == [name]


@pytest.mark.parametrize("text", ["def (:\n", "import \0\n", "x = " + "(" * 5000, 'import late\nx = "\\d"\n'])
def test_a_text_that_is_no_python_is_left_to_who_runs_it(tmp_path: Path, text: str) -> None:
    folders = write(tmp_path, {"odd.py": text, "late.py": ""})
    assert set(code_of("odd:build", folders)) == ({"odd.py", "late.py"} if "late" in text else {"odd.py"})


def test_what_every_pair_has_and_what_is_not_there_is_left_out() -> None:
    for factory in (
        "torch.nn:Linear",
        "lmc_tune.models.mlp:mlp",
        "builtins:dict",
        "os:system",
        "json.decoder:f",
        "no.w:f",
    ):
        assert code_of(factory) == {}, factory


def test_a_space_is_looked_beside_first_then_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert folders_beside(Path("sub/s.yaml")) == (str(tmp_path / "sub"), str(tmp_path))
    assert folders_beside(Path("s.yaml")) == (str(tmp_path),)


def test_which_files_are_of_the_user(tmp_path: Path) -> None:
    write(tmp_path, {"nets.py": "", "site-packages/other.py": ""})
    assert is_of_user(str(tmp_path / "nets.py"))
    import lmc_tune.errors

    for file in (tmp_path / "site-packages/other.py", tmp_path / "gone.py", lmc_tune.errors.__file__, "<string>"):
        assert not is_of_user(str(file))
    import json

    assert not is_of_user(json.__file__)
