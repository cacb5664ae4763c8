"""The commands that say what is there: presets and data sets."""

import itertools
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmc_tune.cli.plainly import Json, examples, note, plain_errors, print_entry, print_json

if TYPE_CHECKING:
    from lmc_tune.experiment.datasets import DatasetFacts

datasets_app = typer.Typer()
DataRoot = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of the data sets (default: $LMC_TUNE_DATA, else a cache folder)."),
]


def presets(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Print this preset.")] = None,
    *,
    copy: Annotated[bool, typer.Option("--copy", help="Write it to NAME.yaml in the current folder.")] = False,
    json_: Json = False,
) -> None:
    """List, print or copy the presets.

    Presets are search spaces that ship with lmc-tune. Copy one to change it.
    """
    with plain_errors():
        from lmc_tune.errors import UserError
        from lmc_tune.experiment.reading import presets as known
        from lmc_tune.experiment.wording import nearest

        texts = {one: path.read_text(encoding="utf-8") for one, path in known().items()}
        if name is None and copy:
            raise UserError("--copy needs the name of a preset; lmc-tune presets lists them")
        if name is not None and name not in texts:
            hint = nearest(name, texts) or f"; the presets are {', '.join(texts)}"
            raise UserError(f"{name}: no such preset{hint}")
        if name is not None and copy:
            _copy(name, texts[name])
            return
    if name is not None:
        if json_:
            print_json({"name": name, "about": _about(texts[name]), "yaml": texts[name]})
        else:
            typer.echo(texts[name], nl=False)
    elif json_:
        print_json({"presets": [{"name": one, "about": _about(text)} for one, text in texts.items()]})
    else:
        width = max(map(len, texts))
        for one, text in texts.items():
            print_entry(one, _about(text), width + 2)


def _about(text: str) -> str:
    """The first sentence of a preset's comment."""
    comment = itertools.takewhile(lambda line: line.startswith("# "), text.splitlines())
    whole = " ".join(line.removeprefix("# ") for line in comment)
    return re.split(r"(?<=[.?]) (?=[A-Z])", whole)[0]


def _copy(name: str, text: str) -> None:
    """Write a preset to the current folder; a file that is there is never replaced."""
    from lmc_tune.errors import UserError

    file = Path(f"{name}.yaml")
    try:
        with file.open("x", encoding="utf-8") as there:
            there.write(text)
    except FileExistsError as error:
        raise UserError(f"{file} exists already and is not replaced; move it, or copy to another folder") from error
    note(f"wrote {file}; change it, then: lmc-tune sweep {file}")


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A data set, and what is wrong with its files: empty if they are complete, None if they are not there."""

    facts: "DatasetFacts"
    problem: str | None

    @property
    def here(self) -> str:
        if self.problem is None:
            return f"not here: lmc-tune datasets get {self.facts.name}"
        return self.problem or ("ready" if self.facts.files else "bundled")

    def plain(self) -> dict[str, Any]:
        """As ``lmc-tune datasets --json`` prints it."""
        facts = self.facts
        numbers = {"train": facts.n_train, "test": facts.n_test, "shape": facts.shape, "megabytes": facts.megabytes}
        words = {"title": facts.title, "source": facts.source, "terms": facts.terms}
        return {"name": facts.name, **numbers, **words, "ready": self.problem == "", "said": self.here}


TEXT = "a file of your own, for language models: dataset: {name: text, path: corpus.txt, context: 128}"


def listed_datasets(root: Path) -> list[Listed]:
    """Every known data set, its files below ``root`` checked; of ``text`` every user has another."""
    from lmc_tune.data.files import DamagedDataError, DataError, UnreadableDataError, check_files
    from lmc_tune.experiment.datasets import DATASETS

    found = []
    for facts in DATASETS.values():
        problem: str | None = ""
        try:
            check_files(facts, root)
        except (DamagedDataError, UnreadableDataError) as error:
            problem = str(error)
        except DataError:
            problem = None
        found.append(Listed(facts=facts, problem=problem))
    return found


@datasets_app.callback(
    invoke_without_command=True, epilog=examples("lmc-tune datasets", "lmc-tune datasets get cifar10")
)
def datasets(context: typer.Context, *, data_root: DataRoot = None, json_: Json = False) -> None:
    """List the data sets, or get one. The list has sizes and sources, and says which data sets are here."""
    if context.invoked_subcommand:
        return
    with plain_errors():
        from lmc_tune.cli.terminal import width_of
        from lmc_tune.data.files import resolve_data_root

        root = resolve_data_root(data_root)
        found = listed_datasets(root)
    if json_:
        print_json({"data_root": str(root), "datasets": [one.plain() for one in found]})
        return
    typer.echo(f"data root: {root}\n")
    for one in found:
        facts = one.facts
        shape = "x".join(map(str, facts.shape))
        sizes = f"{facts.n_train:>6} + {facts.n_test:<6} {shape:<9} {facts.megabytes:>5g} MB"
        first, width = f"{facts.name:<14} {sizes}", width_of(sys.stdout)
        if width is None or len(first) + 2 + len(one.here) <= width:
            typer.echo(f"{first}  {one.here}")
        else:
            typer.echo(first)
            print_entry("", one.here, 15)
        print_entry("", f"{facts.title}; {facts.source}; {facts.terms}", 15)
    print_entry("text", TEXT, 15)


@datasets_app.command("get", epilog=examples("lmc-tune datasets get cifar10 --data-root /scratch/data"))
def datasets_get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A data set (lmc-tune datasets).")],
    *,
    data_root: DataRoot = None,
) -> None:
    """Download a data set and verify every file of it."""
    with plain_errors():
        from lmc_tune.data.files import DataError, resolve_data_root
        from lmc_tune.experiment.datasets import DATASETS

        if name == "text":
            raise DataError(f"text is {TEXT}")
        if name not in DATASETS:
            raise DataError(f"unknown data set {name!r}; there are {', '.join(DATASETS)}")
        from lmc_tune.data.datasets import download

        root = resolve_data_root(data_root)
        download(name, root)
    typer.echo(f"{name} is in {root}" if DATASETS[name].files else f"{name} ships with scikit-learn")
