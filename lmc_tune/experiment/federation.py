"""Federated averaging, as data: who has which part of the training set, and what is averaged how often."""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Tag, field_validator, model_validator

from lmc_tune.experiment.spec import Count, Positive, Spec
from lmc_tune.experiment.yaml_lines import as_written

Norm = Literal["averaged", "local", "recalibrated"]


class Dirichlet(Spec):
    """Every client draws its shares of the classes from Dirichlet(α, …, α); the smaller α, the fewer its classes."""

    dirichlet: Positive

    def __str__(self) -> str:
        return f"dirichlet {self.dirichlet:g}"


class Pathological(Spec):
    """Every client has examples of so many classes only (McMahan et al. 2017)."""

    classes: Count

    def __str__(self) -> str:
        return f"{self.classes} classes each" if self.classes > 1 else "1 class each"


def _kind(split: Any) -> str:
    """``iid``, ``dirichlet`` or ``classes``, of a split that is written or read."""
    if isinstance(split, Dirichlet | Pathological):
        return "dirichlet" if isinstance(split, Dirichlet) else "classes"
    return next(iter(split)) if isinstance(split, dict) and split else "iid"


# The tags are marked: they are in the places of errors, and nobody has written them.
ClientSplit = Annotated[
    Annotated[Literal["iid"], Tag("<iid>")]
    | Annotated[Dirichlet, Tag("<dirichlet>")]
    | Annotated[Pathological, Tag("<classes>")],
    Discriminator(lambda split: f"<{_kind(split)}>"),
]


class FederationSpec(Spec):
    """Clients that train apart and are averaged, round after round (docs/definitions.md, "Federated averaging").

    clients: how many; each has its own part of the training set.
    rounds: how often all clients train and are averaged.
    local_epochs: epochs of every client between two averages.
    split: who has which examples: ``iid``, ``{dirichlet: α}`` or ``{classes: k}``.
    average: the layers that are averaged: ``all``, ``none``, or a list of names, in which ``*`` stands for any
        characters. All other layers stay at their client.
    norm: BatchNorm at an average. ``averaged``: its weights and running statistics are averaged as its layer is;
        ``local``: both stay at their client (FedBN, Li et al. 2021); ``recalibrated``: its weights are averaged, and
        statistics are estimated again after the average. ``averaged`` by default; None without BatchNorm.
    moments: of the clients' optimizers at the beginning of a round: ``restarted`` from zero (McMahan et al. 2017), or
        ``kept`` by each client from its last round.
    """

    clients: Count
    rounds: Count
    local_epochs: Count = 1
    split: ClientSplit = "iid"
    average: Literal["all", "none"] | tuple[str, ...] = "all"
    norm: Norm | None = None
    moments: Literal["restarted", "kept"] = "restarted"

    @field_validator("split", mode="before")
    @classmethod
    def _is_known(cls, split: Any) -> Any:
        known = isinstance(split, Dirichlet | Pathological) or split == "iid"
        if not known and not (isinstance(split, dict) and split.keys() in ({"dirichlet"}, {"classes"})):
            raise ValueError(f"write iid, {{dirichlet: 0.1}} or {{classes: 2}}; got {as_written(split)}")
        return split

    @field_validator("average", mode="before")
    @classmethod
    def _names_layers(cls, average: Any) -> Any:
        patterns = isinstance(average, list | tuple) and average and all(isinstance(name, str) for name in average)
        if average not in ("all", "none") and not patterns:
            raise ValueError(
                f"write all, none, or a list of layers such as [stem, 'stage1.*']; got {as_written(average)}"
            )
        return average

    @model_validator(mode="after")
    def _one_pattern_once(self) -> Self:
        if isinstance(self.average, tuple) and len(set(self.average)) < len(self.average):
            raise ValueError("average names a layer twice; remove one of them")
        return self

    @property
    def epochs(self) -> int:
        """Epochs of every client in all rounds."""
        return self.rounds * self.local_epochs

    @property
    def averaged_layers(self) -> str:
        """What is averaged, as a table says it: ``all``, ``none``, or the patterns."""
        return self.average if isinstance(self.average, str) else ", ".join(self.average)

    @property
    def split_kind(self) -> str:
        """``iid``, ``dirichlet`` or ``classes``."""
        return _kind(self.split)

    @property
    def label(self) -> str:
        """The federation in a few words, e.g. ``20 clients dirichlet 0.01``."""
        return f"{self.clients} clients {self.split}"

    def sizes(self, n: int) -> list[int]:
        """About how many of ``n`` examples each client has: all of them together, as equally as possible."""
        return [n // self.clients + (at < n % self.clients) for at in range(self.clients)]


class Client(Spec):
    """One of a federation's clients, by its number from 1."""

    federation: FederationSpec
    number: Count
