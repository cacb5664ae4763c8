"""The command as a user meets it: help, listings, and every kind of bad input."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lmc_tune.cli.outcome import _with_options
from lmc_tune.cli.plainly import program
from lmc_tune.experiment.reading import presets
from tests.analysis.cases import failed_pair, pair_spec, write_run
from tests.sweeps.cases import PAIRS, SPACE, command, complaint, environment, lmc_tune, lmc_tune_json, write_space


def refused(folder: Path, *arguments: str | Path, text: str | None = None) -> str:
    """What a sweep that must be refused says; nothing may have been written."""
    space = write_space(folder, text) if text else "quickstart"
    done = lmc_tune("sweep", space, "--out", folder / "run", *arguments)
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert not (folder / "run").exists()
    return complaint(done)


def test_a_misspelt_key_is_named_with_its_line_and_the_nearest_name(tmp_path: Path) -> None:
    told = refused(tmp_path, text=SPACE.replace("momentum", "momentm"))
    assert told == "tiny.yaml:5: train.momentm: unknown key 'momentm'; did you mean momentum?\n"


def test_a_negative_learning_rate_is_refused(tmp_path: Path) -> None:
    told = refused(tmp_path, text=SPACE.replace("[0.01, 0.1]", "[0.01, -0.1]"))
    assert told == "tiny.yaml:9: axes.lr[1]: should be greater than 0, got -0.1\n"


def test_an_empty_axis_is_refused(tmp_path: Path) -> None:
    told = refused(tmp_path, text=SPACE.replace("[10, 50]", "[]"))
    assert told == "tiny.yaml:8: axes.batch_size: an axis needs at least one value\n"


def test_a_batch_larger_than_the_part_is_refused(tmp_path: Path) -> None:
    told = refused(tmp_path, text=SPACE.replace("[10, 50]", "[10, 101]"))
    assert told.startswith("tiny.yaml:8: axes.batch_size[1]: 101 is above the 100 examples that a member sees")
    assert "lower it or raise dataset.train" in told


def test_an_unknown_preset_names_the_nearest(tmp_path: Path) -> None:
    done = lmc_tune("sweep", "quikstart", "--out", tmp_path / "run")
    assert (done.returncode, complaint(done)) == (
        2,
        "quikstart: no such file and no such preset; did you mean quickstart?\n",
    )


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    told = refused(tmp_path, "--set", "replicates=0", text=SPACE.replace("momentum", "momentm").replace("50", "-5"))
    assert len(told.splitlines()) == 3


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = lmc_tune("sweep", "quickstart", "--out", tmp_path / "file" / "run")
    assert done.returncode == 2
    assert complaint(done).startswith(f"cannot write to {tmp_path}/file/run")
    assert "choose another folder with --out" in done.stderr


def test_a_link_that_leads_nowhere_is_named_with_its_target(tmp_path: Path) -> None:
    (tmp_path / "runs").symlink_to("gone/scratch")
    done = lmc_tune("sweep", "quickstart", "--out", tmp_path / "runs" / "one")
    assert done.returncode == 2
    assert f"({tmp_path}/runs is a link to gone/scratch, which is not there)" in complaint(done)
    assert complaint(done).count("\n") == 1


def test_a_current_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    run = write_run(tmp_path / "run", [pair_spec()])
    gone.mkdir()
    command = 'rmdir "$PWD"; "$@"'
    for arguments, code in ((["sweep", "quickstart"], 2), (["status", str(run)], 0)):
        gone.mkdir(exist_ok=True)
        done = subprocess.run(
            ["bash", "-c", command, "bash", sys.executable, "-P", "-m", "lmc_tune", *arguments],
            cwd=gone,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done
        told = "the current folder has been deleted; change to a folder that exists (cd), and run the command again\n"
        assert complaint(done) == (told if code else "")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that even root cannot read")
def test_data_that_cannot_be_read_are_named_and_the_others_listed(tmp_path: Path) -> None:
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.parent.mkdir(parents=True)
    file.symlink_to("/proc/self/mem")
    why = f"{file} cannot be read (Input/output error); give this user the right to read it, or name another folder"
    told = refused(tmp_path, "--data-root", tmp_path, text=SPACE.replace("name: digits", "name: mnist"))
    assert told == f"{why} with --data-root or LMC_TUNE_DATA\n"
    listed = lmc_tune("datasets", "--data-root", tmp_path).stdout
    assert why in listed
    assert "not here: lmc-tune datasets get cifar10" in listed


def test_a_space_may_come_through_a_pipe() -> None:
    wrong = SPACE.replace("momentum", "momentm")
    done = subprocess.run(
        command("space", "/dev/stdin"), input=wrong, capture_output=True, text=True, check=False, env=environment()
    )
    assert done.returncode == 2
    assert complaint(done) == "/dev/stdin:5: train.momentm: unknown key 'momentm'; did you mean momentum?\n"


def test_a_tilde_is_the_home_folder_wherever_a_folder_or_file_is_named(tmp_path: Path) -> None:
    """As after --out=, where the shell leaves it alone."""
    (tmp_path / "here").touch()
    write_space(tmp_path)
    write_run(tmp_path / "run", [pair_spec()])
    for arguments in (
        ("sweep", "~/tiny.yaml", "--out=~/here"),
        ("sweep", "~/tiny.yaml", "--storage=~/here"),
        ("sweep", "~/tiny.yaml", "--out=~/x", "--tracking-uri=sqlite:///~/here/m.db"),
        ("sweep", "mnist_mlp", "--out=~/x", "--data-root=~/here"),
        ("status", "~/here"),
        ("report", "~/run", "--output=~/here/x.html"),
    ):
        done = lmc_tune(*arguments, HOME=str(tmp_path))
        assert done.returncode in (1, 2), done
        assert f"{tmp_path}/here" in done.stderr
    assert not Path("~").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    done = lmc_tune("sweep", "quickstart", "--out", tmp_path / "run", "--device", "cuda")
    assert done.returncode == 2
    assert "no CUDA device" in done.stderr  # behind the time of day and a phase, where reading takes long
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("uri", ["localhost:5000", "htp://x", "sqlite:////proc/x.db"])
def test_a_tracking_address_that_can_never_work_is_refused(tmp_path: Path, uri: str) -> None:
    done = lmc_tune("sweep", "quickstart", "--out", tmp_path / "run", "--tracking-uri", uri)
    assert done.returncode == 2
    assert complaint(done).count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_the_current_folder_is_no_run_folder() -> None:
    for out, said in ((".", "--out is the current folder; name a separate"), ("", "the name of a folder is empty")):
        done = lmc_tune("sweep", "quickstart", "--out", out)
        assert done.returncode == 2
        assert complaint(done).startswith(said)


def test_missing_data_name_the_command_that_gets_them(tmp_path: Path) -> None:
    told = refused(tmp_path, "--data-root", tmp_path / "nowhere", text=SPACE.replace("name: digits", "name: mnist"))
    assert f"Get it with: lmc-tune datasets get mnist --data-root {tmp_path}/nowhere" in told


@pytest.mark.parametrize("command", [["report"], ["status"], ["track"], ["ui"]])
def test_a_folder_without_a_sweep_is_named(tmp_path: Path, command: list[str]) -> None:
    done = lmc_tune(*command, tmp_path)
    assert done.returncode in (1, 2)
    assert str(tmp_path) in done.stderr
    assert "lmc-tune" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_would_act_on_the_terminal_is_escaped(tmp_path: Path) -> None:
    told = refused(tmp_path, text=SPACE + '"\\e[2J\\u202e": 1\n')
    assert told == "tiny.yaml:12: \\x1b[2J\\u202e: unknown key '\\x1b[2J\\u202e'\n"
    run = write_run(tmp_path / "run", [pair_spec()], make=lambda spec: failed_pair(spec, "x: \x1b]0;title\x07"))
    done = lmc_tune("status", run)
    assert "\\x1b]0;title\\x07" in done.stdout
    assert done.stdout.replace("\n", "").isprintable()


def test_help_does_not_import_what_is_slow() -> None:
    done = lmc_tune("--help", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    imported = set(re.findall(r"\| +(\w+)$", done.stderr, flags=re.MULTILINE))
    assert "typer" in imported
    assert not imported & {"torch", "ray", "mlflow", "pandas", "numpy", "scipy", "altair", "pyarrow", "sklearn"}


def test_version() -> None:
    done = lmc_tune("--version")
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", done.stdout)


def test_space_counts_cells_pairs_and_steps(tmp_path: Path) -> None:
    cost = lmc_tune_json("space", write_space(tmp_path))
    # 8 cells x 2 replicates x 2 members x 20 epochs of 100/10 or 100/50 steps
    assert (cost["cells"], cost["pairs"], cost["steps"]) == (8, PAIRS, 8 * 2 * 20 * (10 + 2))
    assert min(cost["seconds_train"], cost["seconds_measure"]) > 0
    assert not list(tmp_path.glob("run*"))


def test_space_names_what_tells_the_mappings_of_an_axis_from_each_other(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "name: s\ntrain: {lr: 0.1, batch_size: 32, epochs: 1}\nreplicates: 1\naxes:\n"
        "  dataset: [{name: digits, train: 200}, {name: digits, train: 400, normalise: false}]\n"
        "  model: [{hidden: [8]}, {hidden: [8], norm: batch}]\n"
        "  b: [{}, {nesterov: true, momentum: 0.9}]\n"
    )
    assert lmc_tune("space", tmp_path / "s.yaml").stdout.splitlines()[:3] == [
        "     dataset  digits train 200 normalise true, digits train 400 normalise false",
        "       model  mlp hidden [8] norm none, mlp hidden [8] norm batch",
        "           b  {}, momentum 0.9 nesterov true",
    ]


def test_space_says_that_a_test_set_is_too_small_for_the_threshold(tmp_path: Path) -> None:
    space = write_space(tmp_path)
    coarse = lmc_tune("space", space, "--set", "dataset.test=40", "--set", "verdict.threshold=0.02").stdout
    assert "no cell can be connected: one test example is 2.5% of the error, and the threshold is 2%; raise" in coarse
    fine = lmc_tune("space", space, "--set", "dataset.test=60", "--set", "verdict.threshold=0.02").stdout
    assert "can be connected" not in fine


def test_space_says_how_many_trainings_shared_members_take(tmp_path: Path) -> None:
    """Twenty severities share A, which two cohorts train."""
    for n, said in ((20, "in 22 trainings, since more pairs share members than a cohort holds"), (16, "")):
        severities = [(k + 1) / 20 for k in range(n)]
        (tmp_path / "s.yaml").write_text(
            f"name: s\ntrain: {{lr: 0.1, batch_size: 32, epochs: 1}}\naxes: {{severity: {severities}}}\nreplicates: 1\n"
        )
        done = lmc_tune("space", tmp_path / "s.yaml")
        assert f"members  {n + 1}\n" in done.stdout, done.stderr
        assert ("trainings" in done.stdout) == bool(said)
        assert said in done.stdout


def test_space_says_what_a_run_folder_holds_of_it(tmp_path: Path) -> None:
    done = lmc_tune("space", write_space(tmp_path), "--out", tmp_path / "none")
    assert f"\n    finished  0 of these pairs are in the folder\n        left  {PAIRS}\n" in done.stdout
    assert done.stdout.endswith(" of measuring\n")
    found = lmc_tune_json("space", write_space(tmp_path), "--out", tmp_path / "none")
    assert (found["finished"], found["left"]["pairs"]) == (0, PAIRS)
    assert found["left"]["seconds_train"] == found["seconds_train"]


def test_space_says_that_it_times_and_how_many_programs(tmp_path: Path) -> None:
    done = lmc_tune("space", write_space(tmp_path), "--json")
    assert done.stderr == "timing 2 programs\n"  # two batch sizes
    assert json.loads(done.stdout)["cells"] == 8


def test_presets_and_data_sets_are_listed(tmp_path: Path) -> None:
    listed = lmc_tune("presets").stdout
    assert all(name in listed for name in ("quickstart", "mnist_mlp", "fashion_mlp", "cifar10_mlp"))
    datasets = lmc_tune("datasets", "--data-root", tmp_path).stdout
    assert re.search(r"digits .* bundled", datasets)
    assert "not here: lmc-tune datasets get cifar10" in datasets


def test_listings_are_json_too(tmp_path: Path) -> None:
    listed = {preset["name"]: preset["about"] for preset in lmc_tune_json("presets")["presets"]}
    assert listed["quickstart"].startswith("Where can two small networks")
    found = lmc_tune_json("datasets", "--data-root", tmp_path)
    ready = {dataset["name"]: dataset["ready"] for dataset in found["datasets"]}
    assert (found["data_root"], ready["digits"], ready["cifar10"]) == (str(tmp_path), True, False)


def test_a_preset_is_printed_as_it_is(tmp_path: Path) -> None:
    text = presets()["quickstart"].read_text(encoding="utf-8")
    assert lmc_tune("presets", "quickstart").stdout == text
    assert lmc_tune_json("presets", "quickstart")["yaml"] == text
    done = lmc_tune("presets", "quikstart")
    assert (done.returncode, done.stderr) == (2, "quikstart: no such preset; did you mean quickstart?\n")


def test_a_preset_is_copied_and_no_file_is_replaced(tmp_path: Path) -> None:
    def copy() -> subprocess.CompletedProcess[str]:
        copying = command("presets", "quickstart", "--copy")
        return subprocess.run(copying, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert copy().stderr == "wrote quickstart.yaml; change it, then: lmc-tune sweep quickstart.yaml\n"
    file = tmp_path / "quickstart.yaml"
    assert file.read_text() == presets()["quickstart"].read_text(encoding="utf-8")
    file.write_text("mine")
    again = copy()
    assert again.returncode == 2
    assert again.stderr.startswith("quickstart.yaml exists already and is not replaced")
    assert file.read_text() == "mine"
    assert lmc_tune("presets", "--copy").returncode == 2


COMMANDS = [
    *("sweep", "ensemble", "report", "status", "space", "track", "ui"),
    *("presets", "datasets", "datasets get", "doctor", "measure"),
]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_words_and_an_example(name: str) -> None:
    """Its types read as words, and its lines are whole on a narrow terminal."""
    done = lmc_tune(*name.split(), "-h", COLUMNS="60")
    assert done.returncode == 0
    assert f"\n    lmc-tune {name} " in done.stdout.replace("\n    lmc-tune doctor\n", "\n    lmc-tune doctor \n")
    assert "Example" in done.stdout
    options = done.stdout.split("Options:")[1].split("Example")[0]
    assert not re.search(r"-[\w-]+ (<|TEXT|INTEGER|FLOAT|PATH)", options)
    commands = done.stdout.split("Example")[1]
    assert max(map(len, done.stdout.replace(commands, "").splitlines())) <= 60


def test_every_command_is_listed_whole() -> None:
    done = lmc_tune("-h", COLUMNS="60")
    listed = done.stdout.split("Commands:")[1].split("Example")[0]
    assert set(re.findall(r"^  (\w+)", listed, re.MULTILINE)) == {name.split()[0] for name in COMMANDS}
    assert "..." not in listed


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("lmc-tune st", ["status"]),
        ("lmc-tune sweep --max", ["--max-pairs", "--max-hours"]),
        ("lmc-tune sweep --search ", ["grid", "adaptive"]),
    ],
)
def test_a_shell_completes_commands_options_and_values(typed: str, completed: list[str]) -> None:
    script = Path(sys.executable).with_name("lmc-tune")
    asked = {"_LMC_TUNE_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    done = subprocess.run([script], capture_output=True, text=True, check=True, env=environment(**asked))
    assert done.stdout.split() == completed


def test_getting_an_unknown_data_set_names_the_known_ones(tmp_path: Path) -> None:
    done = lmc_tune("datasets", "get", "imagenet", "--data-root", tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        "unknown data set 'imagenet'; there are digits, mnist, fashion_mnist, usps, cifar10, bigearthnet\n",
    )


@pytest.mark.slow
def test_report_renders_every_format_from_the_tables_alone(tmp_path: Path) -> None:
    space = write_space(tmp_path)
    lmc_tune_json("sweep", space, "--out", tmp_path / "run", "--no-report", "--max-pairs", "8")
    kept = tmp_path / "elsewhere"
    kept.mkdir()
    for name in ("results.parquet", "paths.parquet", "curves.parquet"):
        (tmp_path / "run" / name).rename(kept / name)
    done = lmc_tune("report", kept, "-o", tmp_path / "out.html", "--formats", "html,png,svg,pdf")
    assert done.returncode == 0, done.stderr
    starts = {"html": b"<!doctype html>", "png": b"\x89PNG", "svg": b"<svg", "pdf": b"%PDF"}
    for suffix, start in starts.items():
        assert (tmp_path / f"out.{suffix}").read_bytes()[:15].lower().startswith(start.lower())
    assert len(done.stdout.splitlines()) == len(starts)
    done = lmc_tune("report", kept, "-o", f"{tmp_path}/figures/")
    assert done.stdout.splitlines() == [str(tmp_path / "figures" / "report.html")]


@pytest.mark.slow
def test_the_files_of_a_report_are_named_as_json(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [pair_spec()])
    assert lmc_tune_json("report", run, "--formats", "html,csv") == {
        "files": [str(run / "report.html"), str(run / "report.csv")]
    }
    assert (run / "report.csv").exists()


@pytest.mark.slow
def test_a_dead_server_stops_nothing_and_track_sends_the_rest(tmp_path: Path) -> None:
    space, folder = write_space(tmp_path), tmp_path / "run"
    dead = ("--tracking-uri", "http://127.0.0.1:9")
    done = lmc_tune("sweep", space, "--out", folder, "--no-report", "--max-pairs", "4", "--json", *dead)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert (outcome["trained"], outcome["mirrored"]) == (4, False)
    assert done.stderr.count("lmc-tune track") == 1
    store = f"sqlite:///{tmp_path}/mlflow.db"
    assert lmc_tune_json("track", folder, "--tracking-uri", store) == {"created": 4, "updated": 0, "unchanged": 0}
    assert lmc_tune_json("track", folder, "--tracking-uri", store) == {"created": 0, "updated": 0, "unchanged": 4}


def test_an_option_takes_the_place_of_the_one_before() -> None:
    command = "lmc-tune sweep s.yaml --set replicates=3 --set train.epochs=2 --search adaptive"
    assert _with_options(command, ["--set", "replicates=6"]) == (
        "lmc-tune sweep s.yaml --set train.epochs=2 --search adaptive --set replicates=6"
    )
    assert _with_options(command, ["--search", "grid"]).endswith("--set train.epochs=2 --search grid")


@pytest.mark.parametrize(
    ("called", "shown"),
    [
        ("/some/.venv/bin/lmc-tune", "/some/.venv/bin/lmc-tune"),
        ("/a b/lmc-tune", "'/a b/lmc-tune'"),
        ("/x/lmc_tune/__main__.py", "python -m lmc_tune"),
        ("", "lmc-tune"),
    ],
)
def test_suggested_commands_call_lmc_tune_as_it_was_called(
    monkeypatch: pytest.MonkeyPatch, called: str, shown: str
) -> None:
    monkeypatch.setattr(sys, "argv", [called])
    assert program() == shown
