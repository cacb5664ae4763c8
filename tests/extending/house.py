"""Copies of the package with toys built in, each by the files that README's *Extending* names for it."""

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Toy:
    """What one extension touches.

    entry: its first words in README's *Extending*. most_files: that it may touch.
    changes: texts and what takes their place, by the path of a file of the package.
    added: new files: which of this folder, by their path in the package.
    """

    entry: str
    most_files: int
    changes: dict[str, dict[str, str]] = field(default_factory=dict)
    added: dict[str, str] = field(default_factory=dict)


CONDITION = Toy(
    entry="A condition",
    most_files=2,
    changes={
        "experiment/measuring.py": {
            'Statistics = Literal["naive", "endpoint", ': 'Statistics = Literal["naive", "endpoint", "of_b", ',
            '    "endpoint": "those of A",\n': '    "endpoint": "those of A",\n    "of_b": "those of B",\n',
            '    "endpoint": "naive",\n': '    "endpoint": "naive",\n    "of_b": "naive",\n',
        },
        "measurement/conditions.py": {
            'if condition == "endpoint":': 'if condition in ("endpoint", "of_b"):',
            "line.at(0)\n": 'line.at(condition == "of_b")\n',
            'if condition in {"naive", "endpoint"}:': 'if condition in {"naive", "endpoint", "of_b"}:',
        },
    },
)
COLUMN = Toy(
    entry="A column",
    most_files=2,
    changes={
        "tables/columns.py": {"MEASURED = (\n": 'MEASURED = (\n    Column(name="batches", type=INT, mean="pairs"),\n'},
        "work/facts.py": {
            '"n_train": n_train,\n': '"n_train": n_train, "batches": n_train // spec.train.batch_size,\n'
        },
    },
)
AXIS = Toy(
    entry="A parameter",
    most_files=3,
    changes={
        "experiment/training.py": {
            "    warmup: Fraction = 0.0\n": "    warmup: Fraction = 0.0\n    floor: Fraction = 0.0\n"
        },
        "tables/columns.py": {
            '    Column(name="schedule", type=TEXT),\n': '    Column(name="schedule", type=TEXT),\n'
            '    Column(name="floor", title="lowest rate", scale="linear"),\n'
        },
        "training/schedule.py": {
            "return spec.lr * (1.0 if t < 0.5 else 0.1 if t < 0.75 else 0.01)": "return spec.lr * max(spec.floor, "
            "1.0 if t < 0.5 else 0.1 if t < 0.75 else 0.01)"
        },
    },
)
MEASUREMENT = Toy(
    entry="A measurement",
    most_files=3,
    changes={
        "measurement/registry.py": {
            "from lmc_tune.measurement.measurement": "from lmc_tune.measurement.layers_moved import LayersMoved\n"
            "from lmc_tune.measurement.measurement",
            "tuple[Measurement, ...] = (": "tuple[Measurement, ...] = (LayersMoved(), ",
        },
        "tables/columns.py": {
            "NestedName = Literal[": 'NestedName = Literal["moved",',
            "\nTABLES: ": '\nMOVED = Table(\n    name="moved",\n    sorted_by=("key", "layer"),\n'
            '    columns=(_KEY, Column(name="layer", type=TEXT), Column(name="barrier", unit="nats")),\n)\n\nTABLES: ',
            "*(RESULTS, ": "*(RESULTS, MOVED, ",
        },
    },
    added={"measurement/layers_moved.py": "layers_moved.py"},
)
SEARCH = Toy(
    entry="A search",
    most_files=2,
    changes={
        "sweeps/search/__init__.py": {
            'SearchName = Literal["grid", ': 'SearchName = Literal["grid", "chance", ',
            "    from lmc_tune.sweeps.search.coarse": "    from lmc_tune.sweeps.search.by_chance import by_chance\n"
            "    from lmc_tune.sweeps.search.coarse",
            '= {"grid": grid, ': '= {"grid": grid, "chance": by_chance, ',
        }
    },
    added={"sweeps/search/by_chance.py": "by_chance.py"},
)
TOYS = (CONDITION, COLUMN, AXIS, MEASUREMENT, SEARCH)


def extend(folder: Path) -> None:
    """Put a copy of the package with all toys into a folder."""
    package = folder / "lmc_tune"
    shutil.copytree(ROOT / "lmc_tune", package, ignore=shutil.ignore_patterns("__pycache__"))
    for toy in TOYS:
        for name, replacements in toy.changes.items():
            text = (package / name).read_text(encoding="utf-8")
            for before, after in replacements.items():
                assert text.count(before) == 1, f"{toy.entry}: {name} has {text.count(before)} times {before!r}"
                text = text.replace(before, after)
            (package / name).write_text(text, encoding="utf-8")
        for name, own in toy.added.items():
            shutil.copy(HERE / own, package / name)


def entry_of(toy: Toy) -> str:
    """What README says of the extension."""
    chapter = (ROOT / "README.md").read_text(encoding="utf-8").split("## Extending")[1].split("\n## ")[0]
    (entry,) = [text for text in re.split(r"\n(?=- \*\*)", chapter) if text.startswith(f"- **{toy.entry}**")]
    return entry
