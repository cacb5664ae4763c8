"""The benchmarks compare the same work, count it right, and the page says what they found."""

import json
import os
import subprocess
import sys
import time
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import psutil
import pytest
import torch

from benchmarks import fractions, page, paths, plain_loop, publish, rows, throughput
from benchmarks.floor import Floor, flops_of, step_bytes, step_flops
from benchmarks.fractions import await_all
from benchmarks.networks import NETWORKS, Network
from benchmarks.paths import ways
from benchmarks.sweep import tiny_pairs
from benchmarks.throughput import Plain, make_tasks, throughput_rows
from benchmarks.timing import medians
from lmc_tune.experiment import MlpSpec, ResnetSpec
from lmc_tune.experiment.reading import read_space
from lmc_tune.measurement import network as measured
from lmc_tune.measurement.lines import Segment
from lmc_tune.measurement.scan import scan_stacked
from lmc_tune.sweeps.plan import program
from lmc_tune.training.stacked import StackedRun
from tests import jobs

CPU, GPU = torch.device("cpu"), torch.device("cuda")  # no tensor is put on the latter
TINY = Network(spec=MlpSpec(hidden=(6, 5)))
TINY_RESNET = Network(spec=ResnetSpec(depth=8, width=1 / 8), dataset="cifar10")


@pytest.mark.parametrize(("network", "way"), [(TINY, "vmap"), (TINY_RESNET, "vmap"), (TINY_RESNET, "lanes")])
def test_both_sides_of_a_throughput_train_the_same_weights(network, way):
    tasks = make_tasks(network, members=2, batch_size=4, steps=3, device=CPU, dtype=torch.float64)
    alone, stacked = Plain(tasks), StackedRun(tasks, way)
    for number in range(2):
        alone.epoch(number)
        stacked.epoch(number, [[0.01, 0.01]] * 3)
    plain = [model.state_dict() for model in alone.models]
    for name in plain[0]:
        for member, (one, task) in enumerate(zip(plain, tasks, strict=True)):
            torch.testing.assert_close(one[name], stacked.stack.state(member)[name], rtol=0, atol=1e-10)
            assert not torch.equal(one[name], task.start[name])
        if plain[0][name].is_floating_point():  # the numbers of batches agree
            assert not torch.equal(plain[0][name], plain[1][name])


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(NETWORKS, "tiny", TINY)
    monkeypatch.setitem(throughput._STEPS, "tiny", 3)


def test_a_row_gives_both_rates_and_what_follows_from_them(tiny):
    floor = Floor(flops=1e12, bytes=1e12)
    first, both, last = throughput_rows("tiny", 32, CPU, floor, most=2)
    assert (first, last) == (both[:1], both)
    assert [row["pairs"] for row in both] == [1, 2]
    for row in both:
        plain, stack = row["plain_steps_per_second"], row["stack_steps_per_second"]
        assert plain > 0
        assert stack > 0
        assert row["ratio"] == pytest.approx(stack / plain)
        steps_of_a_pair = 2 * 20 * 781  # 25 000 examples in batches of 32
        assert row["plain_pairs_per_hour"] * steps_of_a_pair == pytest.approx(3600 * plain)
        assert row["stack_pairs_per_hour"] * steps_of_a_pair == pytest.approx(3600 * stack)
        assert row["share_of_floor"] == pytest.approx(stack * floor.seconds(TINY, 32))
        assert row["way"] is row["other_way_steps_per_second"] is None


def test_a_row_is_of_the_faster_way_to_stack(tiny, monkeypatch):
    seconds = {"vmap": {"plain": 1.0, "stack": 8.0}, "lanes": {"plain": 3.0, "stack": 0.5}}
    monkeypatch.setattr(throughput, "ways_of", lambda _: ("vmap", "lanes"))
    monkeypatch.setattr(throughput, "time_way", lambda _, way: seconds[way])
    monkeypatch.setattr(throughput, "make_tasks", lambda *_, members, **__: [None] * members)
    *_, (row,) = throughput_rows("tiny", 32, GPU, Floor(flops=1e12, bytes=1e12), most=1)
    steps = throughput._STEPS_ON_GPU
    rates = (row["stack_steps_per_second"], row["plain_steps_per_second"], row["other_way_steps_per_second"])
    assert (row["way"], rates) == ("lanes", (2 * steps / 0.5, steps / 3, 2 * steps / 8))


@pytest.mark.parametrize(("batch_size", "judged"), [(32, {"least_ratio": 30, "least_share_of_floor": 0.4}), (512, {})])
def test_targets_are_for_the_largest_stack_that_fits(monkeypatch, batch_size, judged):
    def time_way(tasks, way):
        if len(tasks) > 4:
            raise torch.OutOfMemoryError
        return {"plain": 1.0, "stack": 1.0}

    monkeypatch.setattr(throughput, "make_tasks", lambda *_, members, **__: [None] * members)
    monkeypatch.setattr(throughput, "ways_of", lambda _: ("vmap",))
    monkeypatch.setattr(throughput, "time_way", time_way)
    *_, (largest, failed) = throughput_rows("MLP-L1", batch_size, GPU, Floor(flops=1e12, bytes=1e12), most=4)
    none = {"least_ratio": None, "least_share_of_floor": None}
    assert {name: largest[name] for name in none} == none | judged
    assert failed == {"network": "MLP-L1", "batch_size": batch_size, "pairs": 4, "failed": "out of memory"}


def test_stacks_grow_up_to_a_whole_cohort():
    assert throughput.sizes(16, 2) == [1, 2, 4, 8, 16]
    assert throughput.sizes(128, 4) == [1, 4, 16, 64, 128]
    assert throughput.sizes(1, 4) == [1]


def test_the_median_leaves_out_the_first_of_runs_taken_in_turn():
    seen, now = [], [0.0]
    takes = {"plain": iter([100, 1, 9, 2]), "stack": iter([0, 5, 4, 6])}

    def way(name):
        def work(number):
            seen.append((name, number))
            now[0] += next(takes[name])

        return work

    found = medians({name: way(name) for name in takes}, runs=3, clock=lambda: now[0])
    assert seen == [(name, number) for number in range(4) for name in takes]
    assert found == {"plain": 2, "stack": 5}


def test_a_perceptrons_step_is_counted_as_by_hand():
    widths, batch = (784, 512, 512, 512, 10), 32
    products = [2 * batch * ins * outs for ins, outs in pairwise(widths)]
    # Forwards, the gradient of the weights, and that of the inputs, which the first layer's have not.
    assert step_flops(NETWORKS["MLP-L3"], batch) == 3 * sum(products) - products[0]
    parameters = sum((ins + 1) * outs for ins, outs in pairwise(widths))
    assert step_bytes(NETWORKS["MLP-L3"], batch) == 20 * parameters + 4 * batch * 784


def test_the_floor_is_the_slower_of_arithmetic_and_memory():
    network = NETWORKS["small MLP"]
    assert Floor(flops=2.0, bytes=1e30).seconds(network, 8) == step_flops(network, 8) / 2
    assert Floor(flops=1e30, bytes=4.0).seconds(network, 8) == step_bytes(network, 8) / 4


def test_a_scans_multiplications_are_counted_as_by_hand():
    """The first layer of a perceptron twice, all else at every position."""
    n, positions = 7, 5
    first, rest = 784 * 6, 6 * 5 + 5 * 10
    _, scanned = ways(TINY, positions, n, CPU)
    assert flops_of(scanned) == 2 * n * (2 * first + positions * rest)
    a, b, model = (TINY.build(seed) for seed in range(3))
    examples = TINY.examples(n, torch.Generator())
    lambdas, path = torch.linspace(0, 1, positions).tolist(), Segment(a.state_dict(), b.state_dict())
    stacked = flops_of(lambda: scan_stacked(measured.Network(model), path, lambdas, examples))
    assert stacked == 2 * n * (2 * first + positions * rest)
    _, scanned = ways(TINY_RESNET, positions, n, CPU)
    model, one = TINY_RESNET.build(0).eval(), TINY_RESNET.examples(1, torch.Generator())
    assert flops_of(scanned) == positions * n * flops_of(lambda: model(one.inputs))


def test_the_loop_beside_a_scan_measures_the_same_losses():
    for network in (TINY, TINY_RESNET):
        loop, scanned = ways(network, 5, 200, CPU)
        assert loop() == pytest.approx(scanned(), rel=1e-5)
        assert len(set(loop())) == 5


def test_loops_begin_together_or_not_at_all(tmp_path):
    waiting = [Thread(target=await_all, args=(tmp_path, number, 3), daemon=True) for number in range(2)]
    for thread in waiting:
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
    await_all(tmp_path, 2, 3)
    for thread in waiting:
        thread.join(10)
        assert not thread.is_alive()
    with pytest.raises(RuntimeError, match="only 3 of 4 loops were ready after 0 seconds"):
        await_all(tmp_path, 2, 4, patience_seconds=0)


def test_the_plain_loop_steps_through_every_batch_in_order():
    """On one weight and a batch of one, a step of plain SGD by hand."""
    model = torch.nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0], [0.0]]))
    part = plain_loop.Examples(inputs=torch.tensor([[1.0], [2.0]]), labels=torch.tensor([0, 1]))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    plain_loop.train_epoch(model, optimizer, part, torch.tensor([[0], [1]]))
    weight = 0.5  # the first example moves logit 0 by half of its input, logit 1 by minus that
    p = 1 / (1 + torch.exp(torch.tensor(-2 * 2 * weight)))  # of class 0 for the second, whose logits are ±2·weight
    expected = torch.tensor([[weight - 2 * p], [-weight + 2 * p]])
    torch.testing.assert_close(model.weight.detach(), expected)


def test_results_name_the_packages_that_are_there(monkeypatch, tmp_path):
    """A GPU machine may have torch without Ray."""

    def version(package: str) -> str:
        if package == "ray":
            raise metadata.PackageNotFoundError(package)
        return f"{package} 1"

    monkeypatch.setattr(metadata, "version", version)
    publish.write_results(tmp_path / "results", "some", [{"figure": 2.5}], {"device": "a GPU"})
    written = json.loads((tmp_path / "results" / "some.json").read_text(encoding="utf-8"))
    assert written["rows"] == [{"figure": 2.5}]
    named = {"torch": "torch 1", "mlflow": "mlflow 1", "device": "a GPU"}
    assert {name: written["machine"].get(name) for name in (*named, "ray")} == named | {"ray": None}


def test_a_part_of_the_rows_is_printed_and_leaves_what_was_written(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(publish, "RESULTS", tmp_path)
    publish.publish("some", [{"figure": 2.5}, {"figure": 3.5}])
    before = (tmp_path / "some.json").read_bytes()
    publish.publish("some", [{"figure": 4.5}], whole=False)
    assert (tmp_path / "some.json").read_bytes() == before
    assert "4.5" in capsys.readouterr().out


def found(folder: Path) -> dict:
    return json.loads((folder / "some.json").read_text(encoding="utf-8"))


def test_a_job_that_raises_or_dies_is_a_row_that_says_so_and_the_others_go_on(tmp_path, capfd):
    rows.run(jobs.benchmark("first", "raises", "second", "dies", "third"), 600, tmp_path)
    content = found(tmp_path)
    assert content["machine"]["device"] == "none"
    assert "left" not in content
    assert [(row["name"], row.get("figure"), row.get("failed")) for row in content["rows"]] == [
        ("first", 1.5, None),
        ("first", 2.5, None),
        ("raises", 1.5, None),
        ("raises", None, "RuntimeError: CUDA error: an illegal memory access was encountered"),
        ("second", 1.5, None),
        ("second", 2.5, None),
        ("dies", 1.5, None),
        ("dies", None, "its process ended with exit code 9"),
        ("third", 1.5, None),
        ("third", 2.5, None),
    ]
    # After an error the GPU may be of no use to the process that met it.
    processes = list(dict.fromkeys(row["process"] for row in content["rows"] if "process" in row))
    assert len(processes) == 3
    assert os.getpid() not in processes
    told = capfd.readouterr().out.splitlines()
    assert told[1].startswith("some: name first, figure 2.5, process ")
    assert told[-1] == "some: 10 rows; 0 of 5 jobs are left"


def test_a_budget_that_ends_in_a_job_keeps_its_rows_and_ends_all_that_it_started(tmp_path, monkeypatch):
    """The time is over as soon as there is a row of the job that hangs."""

    def clock():
        path = tmp_path / "some.json"
        return 1e9 if path.exists() and "hangs" in {row["name"] for row in found(tmp_path)["rows"]} else 0.0

    monkeypatch.setattr(rows, "time", SimpleNamespace(monotonic=clock))
    rows.run(jobs.benchmark("first", "hangs", "never"), 600, tmp_path)
    monkeypatch.undo()
    content = found(tmp_path)
    assert [row["name"] for row in content["rows"]] == ["first", "first", "hangs"]
    assert content["left"] == ["hangs", "never"]
    assert not psutil.pid_exists(content["rows"][-1]["process"])
    assert "sleep" not in {child.name() for child in psutil.Process().children(recursive=True)}


def test_a_run_without_time_writes_nothing_over_what_is_there(tmp_path):
    (tmp_path / "some.json").write_text("earlier", encoding="utf-8")
    rows.run(jobs.benchmark("first"), 0, tmp_path)
    assert (tmp_path / "some.json").read_text(encoding="utf-8") == "earlier"


def test_a_part_of_the_jobs_is_printed_and_not_kept(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    rows.run(jobs.benchmark("first"), 600, None)
    assert not list(tmp_path.iterdir())
    assert "name first, figure 2.5" in capfd.readouterr().out


def killed_after(folder: Path, name: str, *command: str) -> None:
    """Start a command, kill it when a result's first rows are there, and see that nothing of it is left."""
    with subprocess.Popen([sys.executable, *command], start_new_session=True) as process:
        while not (folder / name).exists():
            assert process.poll() is None
            time.sleep(0.05)
        below = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    _, alive = psutil.wait_procs(below, timeout=60)
    assert not alive


def test_a_run_that_is_killed_keeps_every_row_so_far_and_says_what_is_missing(tmp_path):
    killed_after(tmp_path, "some.json", "-m", "tests.jobs", str(tmp_path))
    content = found(tmp_path)
    assert [row["name"] for row in content["rows"]][:1] == ["ends"]
    assert content["left"][-2:] == ["hangs", "never"]


@pytest.mark.slow
def test_all_that_a_gpu_is_measured_by_can_be_killed_at_any_time(tmp_path):
    killed_after(tmp_path, "throughput-cpu.json", "-m", "benchmarks.gpu", "--device", "cpu", "--out", str(tmp_path))
    (tmp_path / "throughput-cuda.json").write_bytes((tmp_path / "throughput-cpu.json").read_bytes())
    text = page.render(tmp_path)
    assert "| MLP-L3 | 32 | 1 |" in text
    assert "Partial: not measured, or not to the end: MLP-L3 32, ResNet-20 32, " in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("name", ["gpu", "throughput", "paths", "fractions"])
def test_without_a_gpu_nothing_is_measured_or_written(name, tmp_path):
    arguments = ["--device", "cuda", "--out", str(tmp_path / "rows")]
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "there is no CUDA device here; run it on a machine with a GPU, or say --device cpu" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_most_important_rows_of_a_gpu_come_first():
    measured = [tuple(job.values()) for job in throughput.benchmark("cuda").jobs]
    assert {name for name, size in measured[:4] if size == 32} == set(throughput.LEAST)
    assert {size for _, size in measured[:6]} == {32}
    assert len(measured) == 12
    assert [*paths.benchmark("cuda").jobs[:2]] == [{"network": "MLP-L3"}, {"network": "ResNet-20"}]
    assert fractions.benchmark("cuda").jobs[0] == {"network": "MLP-L3", "batch_size": 32, "loops": 4}
    names = {section.result for section in page.SECTIONS}
    assert {part.benchmark("cuda").result for part in (throughput, paths, fractions)} <= names


def test_tiny_pairs_are_as_many_as_said_and_run_one_program():
    for n in (10, 100):
        pairs = read_space("quickstart", tiny_pairs(n)).pairs()
        assert len({pair.key for pair in pairs}) == n
        assert len({program(pair) for pair in pairs}) == 1


def test_the_page_is_what_the_results_say():
    assert page.PAGE.read_text(encoding="utf-8") == page.render(publish.RESULTS)


def test_the_page_judges_targets_and_names_what_was_not_measured(tmp_path):
    rows = [
        {"pairs": 12_345, "seconds": 9.5, "target_seconds": 10, "slope": None},
        {"pairs": 10, "seconds": 3.25, "target_seconds": 3, "slope": 0.12345},
        {"pairs": 1, "seconds": 99.0, "target_seconds": None, "slope": None},
    ]
    (tmp_path / "one.json").write_text(json.dumps({"machine": {"cores": 2}, "rows": rows}), encoding="utf-8")
    (tmp_path / "two.json").write_text(json.dumps({"machine": {}, "rows": rows[:1]}), encoding="utf-8")
    sections = [
        page.Section(title=name.title(), result=name, command=f"run {name}", text="Text.", gpu=name == "four")
        for name in ("one", "two", "three", "four")
    ]
    text = page.render(tmp_path, sections)
    assert (
        "| One | 12 345 | seconds | ≤ 10 | 9.5 | holds |\n| One | 10 | seconds | ≤ 3 | 3.25 | does not hold |\n"
        "| Two | 12 345 | seconds | ≤ 10 | 9.5 | holds |\n"
    ) in text
    assert (
        "| pairs | seconds | target seconds | slope |\n| --- | --- | --- | --- |\n| 12 345 | 9.5 | 10 | – |\n" in text
    )
    faster = [
        {"network": name, "other_ratio": 1.0, "ratio": ratio, "least_ratio": 1.5}
        for name, ratio in (("A", 5.0), ("B", 1.7))
    ]
    (tmp_path / "three.json").write_text(json.dumps({"machine": {}, "rows": faster}), encoding="utf-8")
    assert "| Three | A, B | ratio | ≥ 1.5 | 1.7 | holds |\n" in page.render(tmp_path, sections)
    assert "| 10 | 3.25 | 3 | 0.123 |\n| 1 | 99 | – | – |\n\nMeasured with cores 2.\n" in text
    assert "    run three\n\nNot measured.\n" in text
    assert "    run four\n\nNot measured: no GPU was available.\n" in text


def test_the_page_says_what_failed_and_what_a_partial_run_left(tmp_path):
    rows = [{"network": "A", "failed": "out of memory"}, {"network": "B", "ratio": 2.5, "least_ratio": 2}]
    content = {"machine": {"cores": 2}, "rows": rows, "left": ["B 512", "C 32"]}
    (tmp_path / "one.json").write_text(json.dumps(content), encoding="utf-8")
    targets = (("least_ratio", 2, "B"), ("least_ratio", 8, "C"))
    text = page.render(
        tmp_path, [page.Section(title="one", result="one", command="run", text="Text.", targets=targets, gpu=True)]
    )
    assert "| network | failed | ratio | least ratio |\n" in text
    assert (
        "| A | out of memory | – | – |\n| B | – | 2.5 | 2 |\n\n"
        "Partial: not measured, or not to the end: B 512, C 32.\n\nMeasured with cores 2.\n"
    ) in text
    assert "| one | B | ratio | ≥ 2 | 2.5 | holds |\n| one | C | ratio | ≥ 8 | – | not measured |\n" in text


def test_the_page_lists_targets_that_were_not_measured(tmp_path):
    rows = [{"network": "A", "ratio": 31.0, "least_ratio": 30}, {"network": "B", "ratio": 2.0, "least_ratio": None}]
    (tmp_path / "one.json").write_text(json.dumps({"machine": {}, "rows": rows}), encoding="utf-8")
    targets = (("least_ratio", 30, "A"), ("least_ratio", 8, "B and C"))
    sections = [
        page.Section(title=name, result=name, command="run", text="Text.", targets=targets, gpu=gpu)
        for name, gpu in (("one", True), ("two", True), ("three", False))
    ]
    needs = "not measured: needs a GPU"
    assert (
        f"| one | A | ratio | ≥ 30 | 31 | holds |\n| one | B and C | ratio | ≥ 8 | – | not measured |\n"
        f"| two | A | ratio | ≥ 30 | – | {needs} |\n| two | B and C | ratio | ≥ 8 | – | {needs} |\n"
        "| three | A | ratio | ≥ 30 | – | not measured |\n"
    ) in page.render(tmp_path, sections)
