"""Pairs whose members see two domains."""

import gc
import weakref
from pathlib import Path

import pytest
import torch

from lmc_tune.data.datasets import load_dataset
from lmc_tune.work.cohort import run_pair
from lmc_tune.work.prepare import prepare
from tests.cases import pair_spec

DOMAINS = ["gaussian_noise", "blur", "contrast", "rotation", "jpeg"]


@pytest.mark.parametrize("hidden", [(8,), (16,)], ids=["loop", "stacked"])
@pytest.mark.parametrize("domain", DOMAINS)
def test_a_second_domain_changes_what_b_sees_and_severity_0_is_covariate_shift(bench, domain, hidden):
    def run(name: str, **shift):
        spec = pair_spec(train={"epochs": 2, "lr": 0.1}, model={"hidden": hidden}, shift=shift)
        return run_pair(spec, bench(name)).row

    shifted = run("shifted", kind="domain", domain=domain)
    alike = run("alike", kind="domain", domain=domain, severity=0.0)
    covariate = run("covariate", kind="covariate")
    specs = {"key", "cell", "spec", "member_b", "shift", "severity", "domain", "seconds_train", "seconds_measure"}
    assert {name: alike[name] for name in alike.keys() - specs} == {
        name: covariate[name] for name in alike.keys() - specs
    }
    assert shifted["covariate_shift"] > covariate["covariate_shift"]
    assert shifted["label_shift"] == 0
    assert shifted["train_loss_b"] != covariate["train_loss_b"]
    assert shifted["train_loss_a"] == covariate["train_loss_a"]
    assert shifted["domain"] == domain


def test_both_domains_are_tested_and_measured(bench):
    """Members are scored on the test set as A sees it and as B does; a path on both parts as their members saw them."""
    spec = pair_spec(shift={"kind": "domain", "domain": "contrast"})
    data = prepare(spec, bench()).data
    plain = load_dataset(spec.dataset, Path())
    assert len(data.test) == 2 * len(plain.test)
    seen = torch.cat([some.inputs for some in data.test.chunks(100)])
    assert torch.equal(seen[: len(plain.test)], plain.test.inputs)
    assert seen[len(plain.test) :].std() < 0.5 * plain.test.inputs.std()
    result = run_pair(spec, bench())
    counts = {point["split"]: point["n"] for point in result.tables["paths"]}
    assert counts == {"train": len(data.a) + len(data.b), "test": 2 * len(plain.test)}
    mixed = torch.cat([some.inputs for some in data.shuffled(0).chunks(64)])
    assert len(mixed) == counts["train"]
    assert mixed[:32].std() > 1.5 * mixed[32:64].std()  # half of every chunk is of each


def test_views_of_domains_that_are_done_with_are_let_go(bench):
    seen = []
    for severity in (0.2, 0.4, 0.6, 0.8):
        spec = pair_spec(shift={"kind": "domain", "domain": "contrast", "severity": severity})
        seen.append(weakref.ref(prepare(spec, bench()).data.b.whole))
    gc.collect()
    assert sum(ref() is not None for ref in seen) <= 2
