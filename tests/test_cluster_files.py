"""The cluster files, as far as they can be tried without a cloud: Ray's own checks, and AWS played by moto."""

import copy
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import boto3
import moto
import pytest
import typer
import yaml
from botocore.exceptions import ClientError, ParamValidationError
from ray.autoscaler._private import _azure as azure
from ray.autoscaler._private import commands
from ray.autoscaler._private.aws import config as aws_config
from ray.autoscaler._private.aws import node_provider as aws_provider
from ray.autoscaler._private.aws import utils as aws_utils
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.node_launcher import BaseNodeLauncher
from ray.autoscaler._private.node_provider_availability_tracker import NodeProviderAvailabilityTracker
from ray.autoscaler._private.resource_demand_scheduler import (
    ResourceDemandScheduler,
    _default_utilization_scorer,
    get_nodes_for,
)
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.tags import (
    TAG_RAY_CLUSTER_NAME,
    TAG_RAY_NODE_KIND,
    TAG_RAY_NODE_NAME,
    TAG_RAY_NODE_STATUS,
    TAG_RAY_USER_NODE_TYPE,
)
from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import CloudResourceMonitor
from ray.core.generated.instance_manager_pb2 import Instance, InstanceUpdateEvent
from ray.scripts.scripts import cli as ray_commands

from lmc_tune.cli.commands import app
from lmc_tune.sweeps.spot import score_machine

Config = dict[str, Any]

_ROOT = Path(__file__).resolve().parents[1]
_CLOUDS = ["cluster.yaml", "cluster/gcp.yaml", "cluster/azure.yaml"]
_LAUNCHED = [*_CLOUDS, "cluster/local.yaml"]
_FILES = [*_LAUNCHED, "cluster/kuberay.yaml"]
_COMMANDS = ("setup_commands", "head_setup_commands", "worker_setup_commands")
_STARTS = ("head_start_ray_commands", "worker_start_ray_commands")
_SCORER = "RAY_AUTOSCALER_UTILIZATION_SCORER"


def _read(name: str) -> Config:
    return yaml.safe_load((_ROOT / name).read_text())


def _starts(config: Config, key: str) -> list[list[str]]:
    """The words of the commands that start Ray."""
    words = [shlex.split(command) for command in config[key]]
    return [each for each in words if " ray start " in f" {' '.join(each)} "]


@pytest.mark.parametrize("name", _LAUNCHED)
def test_ray_accepts_the_file(name):
    config = prepare_config(_read(name))
    validate_config(config)
    with pytest.raises(Exception, match="idle_minutes"):
        validate_config({**config, "idle_minutes": 5})


def test_no_file_is_left_out():
    assert {path.relative_to(_ROOT).as_posix() for path in (_ROOT / "cluster").iterdir()} == set(_FILES[1:])


@pytest.mark.parametrize("name", _LAUNCHED)
def test_every_start_asks_for_the_token_and_keeps_the_dashboard_on_loopback(name):
    config = _read(name)
    for key in _STARTS:
        (start,) = _starts(config, key)  # one, and so none without
        assert "RAY_AUTH_MODE=token" in start
        assert "RAY_USAGE_STATS_ENABLED=0" in start
        assert ("--head" in start) == (key == "head_start_ray_commands")
        assert ("--dashboard-host=127.0.0.1" in start) == ("--head" in start)
    assert ("~/.ray/auth_token", "~/.ray/auth_token") in config["file_mounts"].items()
    assert config["setup_commands"][0] == "chmod 700 ~/.ray && chmod 600 ~/.ray/auth_token"
    assert any("RAY_AUTH_MODE=token" in command and "~/.bashrc" in command for command in config["setup_commands"])


@pytest.mark.parametrize("name", _FILES)
def test_nothing_listens_beyond_loopback_by_choice(name):
    text = (_ROOT / name).read_text()
    assert "0.0.0.0" not in text  # noqa: S104
    servers = re.findall(r"mlflow,? server.*?--host,? ([\d.]+)", text, re.DOTALL)
    assert servers == ["127.0.0.1"]


@pytest.mark.parametrize("name", _LAUNCHED)
def test_every_command_is_one_line_of_shell(name):
    """Folding a long command must not have left a comment, a line break or an open bracket in it."""
    config = prepare_config(_read(name))
    for key in (*_COMMANDS, *_STARTS):
        for command in config[key]:
            assert isinstance(command, str)
            assert "\n" not in command
            subprocess.run(["bash", "-n", "-c", command], check=True)
            assert shlex.split(command, comments=True) == shlex.split(command)


@pytest.mark.parametrize("name", _LAUNCHED)
def test_commands_do_what_they_say(name, tmp_path):
    """Really run, in a home folder of their own, with a `ray` that tells what it was started with."""
    config = _read(name)
    stub = tmp_path / "bin" / "ray"
    stub.parent.mkdir()
    stub.write_text("#!/bin/sh\nenv | grep ^RAY_\n")
    stub.chmod(0o755)
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("secret")
    token.chmod(0o644)

    def run(command: str) -> str:
        environment = {"HOME": str(tmp_path), "PATH": f"{stub.parent}:/usr/bin:/bin", "RAY_HEAD_IP": "192.0.2.1"}
        shell = ["bash", "-c", f"export RAY_enable_autoscaler_v2=1; {command}"]  # as `ray up` does
        return subprocess.run(shell, env=environment, check=True, capture_output=True, text=True).stdout

    run(config["setup_commands"][0])
    assert (token.stat().st_mode & 0o777, token.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    for command in 2 * [each for each in config["setup_commands"] if "~/.bashrc" in each]:
        run(command)
    exports = (tmp_path / ".bashrc").read_text()
    assert exports.count("RAY_AUTH_MODE=token") == 1
    for key in _STARTS:
        said = run(config[key][-1]).splitlines()
        assert {"RAY_AUTH_MODE=token", "RAY_USAGE_STATS_ENABLED=0"} <= set(said)
        assert ("RAY_enable_autoscaler_v2=0" in said) == (key == "head_start_ray_commands")


@pytest.mark.parametrize("name", _CLOUDS)
def test_machines_come_and_go(name):
    config = prepare_config(_read(name))
    types = config["available_node_types"]
    assert all(kind["min_workers"] == 0 for kind in types.values())
    assert types[config["head_node_type"]]["resources"] == {"CPU": 0}
    assert types["gpu_spot"]["max_workers"] == config["max_workers"] > 0
    assert 0 < config["idle_timeout_minutes"] <= 30
    assert config["provider"]["cache_stopped_nodes"] is False


@pytest.mark.parametrize("name", _CLOUDS)
def test_what_is_sent_is_what_pip_needs_and_nothing_else(name):
    sent = {remote: local for remote, local in _read(name)["file_mounts"].items() if "auth_token" not in remote}
    assert all(remote == f"~/lmc-tune/{local}" and (_ROOT / local).exists() for remote, local in sent.items())
    assert set(sent.values()) == {"lmc_tune", "analysis", "search_spaces", "pyproject.toml", "README.md", "LICENSE"}


@pytest.mark.parametrize("name", _CLOUDS)
def test_values_to_fill_in_stand_once(name):
    """Every placeholder is in a line that says so, or in the one below."""
    lines = (_ROOT / name).read_text().splitlines()
    kept = [line.split("#")[0] for line in lines]
    held = [n for n, line in enumerate(kept) if re.search(r"ami-0{17}|NFS=|your|fs-0{17}|192\.0\.2", line)]
    assert held
    for n in held:
        assert any("FILL IN" in line for line in lines[n - 2 : n + 1]), lines[n]


def test_the_clouds_differ_only_in_what_clouds_differ_in():
    """Token, environment, MLflow and workers' start are the same everywhere."""
    ours, *others = (_read(name) for name in _CLOUDS)
    for other in others:
        assert other["file_mounts"] == ours["file_mounts"]
        assert other["worker_start_ray_commands"] == ours["worker_start_ray_commands"]
        assert other["head_start_ray_commands"][:-1] == ours["head_start_ray_commands"][:-1]
        assert len(other["setup_commands"]) == len(ours["setup_commands"])


def test_local_has_the_older_autoscaler():
    (start,) = _starts(_read("cluster/local.yaml"), "head_start_ray_commands")
    assert "RAY_enable_autoscaler_v2=0" in start


def test_kuberay_manifest_gives_ray_its_autoscaling():
    config = _derive_autoscaling_config_from_ray_cr(_read("cluster/kuberay.yaml"))
    types = config["available_node_types"]
    assert config["idle_timeout_minutes"] == 10
    assert types["headgroup"]["resources"]["CPU"] == 0
    assert (types["gpu"]["min_workers"], types["gpu"]["max_workers"]) == (0, 4)
    assert types["gpu"]["resources"] == {"CPU": 4, "GPU": 1, "memory": 16 * 2**30}


def test_kuberay_pods_are_confined_and_take_the_token_from_a_secret():
    manifest = _read("cluster/kuberay.yaml")
    spec = manifest["spec"]
    assert (manifest["apiVersion"], manifest["kind"], spec["enableInTreeAutoscaling"]) == (
        "ray.io/v1",
        "RayCluster",
        True,
    )
    assert spec["headGroupSpec"]["rayStartParams"]["dashboard-host"] == "127.0.0.1"
    pods = [group["template"]["spec"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        names = {volume["name"] for volume in pod["volumes"]}
        assert all(mount["name"] in names for each in pod["containers"] for mount in each["volumeMounts"])
    for each in [spec["autoscalerOptions"], *(container for pod in pods for container in pod["containers"])]:
        environment = {entry["name"]: entry for entry in each["env"]}
        assert environment["RAY_AUTH_MODE"]["value"] == "token"
        assert environment["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": "ray-token", "key": "token"}
        assert "value" not in environment["RAY_AUTH_TOKEN"]
        assert each["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert {"cpu", "memory"} <= each["resources"]["requests"].keys() & each["resources"]["limits"].keys()
        assert all(isinstance(entry.get("value", ""), str) for entry in each["env"])  # Kubernetes takes no numbers


def test_kuberay_exposes_nothing_and_workers_have_no_rights_in_kubernetes():
    """Whatever KubeRay would make beyond the head's service inside the cluster has to be asked for by these."""
    (manifest,) = yaml.safe_load_all((_ROOT / "cluster/kuberay.yaml").read_text())
    spec = manifest["spec"]
    head = spec["headGroupSpec"]
    assert not {"serviceType", "enableIngress"} & head.keys()
    assert not {"headServiceAnnotations", "headService"} & (head.keys() | spec.keys())
    pods = [group["template"]["spec"] for group in (head, *spec["workerGroupSpecs"])]
    for pod in pods:
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert not any("ports" in container or "privileged" in str(container) for container in pod["containers"])
    assert [pod.get("automountServiceAccountToken") for pod in pods] == [None, False]  # the head's autoscaler needs it
    assert spec["enableInTreeAutoscaling"] is True


def test_azures_own_group_opens_ssh_and_nothing_else():
    """Ray's template makes it; cluster/azure.yaml cannot say otherwise."""
    template = json.loads((Path(azure.__file__).parent / "azure-config-template.json").read_text())
    (group,) = [each for each in template["resources"] if each["type"].endswith("networkSecurityGroups")]
    (rule,) = [rule["properties"] for rule in group["properties"]["securityRules"]]
    assert (rule["direction"], rule["access"], rule["destinationPortRange"]) == ("Inbound", "Allow", "22")


def test_the_token_that_the_page_has_made_is_for_its_owner_alone(tmp_path):
    """By Ray itself, which leaves it readable by all; also where one that is so is there already."""
    page = (_ROOT / "docs" / "cluster.md").read_text()
    (line,) = [line.strip() for line in page.splitlines() if "get-auth-token --generate" in line]
    environment = {**os.environ, "HOME": str(tmp_path)}
    environment = {name: value for name, value in environment.items() if not name.startswith("RAY_AUTH")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    token = tmp_path / ".ray" / "auth_token"
    for _ in range(2):
        subprocess.run(["bash", "-c", f"umask 022; {line}"], env=environment, check=True, capture_output=True)
        assert len(token.read_text()) == 64
        assert token.stat().st_mode & 0o777 == 0o600
        token.chmod(0o644)
    assert token.parent.stat().st_mode & 0o777 == 0o700


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Config]]:
    """AWS as moto plays it, and what `ray up` makes of the file there: with a home for the key, without waits."""
    caches = [aws_utils.resource_cache, aws_utils.client_cache, aws_config._get_subnets_or_die]
    account = moto.mock_aws(config={"iam": {"load_aws_managed_policies": True}})
    with pytest.MonkeyPatch.context() as patch, account:
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setattr(aws_config.time, "sleep", lambda _seconds: None)
        for cache in caches:
            cache.cache_clear()
        client = boto3.client("ec2", "us-west-2")
        config = _read("cluster.yaml")
        image = client.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        for kind in config["available_node_types"].values():
            kind["node_config"]["ImageId"] = image  # that the user fills in
        yield client, commands._bootstrap_config(config, no_config_cache=True)
    for cache in caches:
        cache.cache_clear()


def _provider(config: Config) -> aws_provider.AWSNodeProvider:
    return aws_provider.AWSNodeProvider(config["provider"], config["cluster_name"])


def _launch(provider: aws_provider.AWSNodeProvider, config: Config, kind: str) -> str:
    """Start one machine of this type as Ray does; its id."""
    head = kind == config["head_node_type"]
    node_config = {**config["available_node_types"][kind]["node_config"], **(config["head_node"] if head else {})}
    tags = {
        TAG_RAY_NODE_NAME: f"ray-{kind}",
        TAG_RAY_NODE_KIND: "head" if head else "worker",
        TAG_RAY_NODE_STATUS: "uninitialized",
        TAG_RAY_USER_NODE_TYPE: kind,
    }
    (identity,) = provider.create_node(node_config, tags, 1)
    return identity


def test_aws_starts_what_the_file_says(aws):
    client, config = aws
    provider = _provider(config)
    found = {}
    for kind in ("head", "gpu_on_demand", "gpu_spot"):
        identity = _launch(provider, config, kind)
        (found[kind],) = client.describe_instances(InstanceIds=[identity])["Reservations"][0]["Instances"]
    assert {kind: each.get("InstanceLifecycle") for kind, each in found.items()} == {
        "head": None,
        "gpu_on_demand": None,
        "gpu_spot": "spot",
    }
    assert found["gpu_spot"]["InstanceType"] == found["gpu_on_demand"]["InstanceType"] != found["head"]["InstanceType"]
    for kind, each in found.items():
        assert {tag["Key"]: tag["Value"] for tag in each["Tags"]}[TAG_RAY_CLUSTER_NAME] == "lmc-tune"
        assert each["MetadataOptions"]["HttpTokens"] == "required"
        (mapping,) = each["BlockDeviceMappings"]
        (volume,) = client.describe_volumes(VolumeIds=[mapping["Ebs"]["VolumeId"]])["Volumes"]
        assert (volume["Encrypted"], volume["Size"], mapping["Ebs"]["DeleteOnTermination"]) == (True, 100, True)
        # Only the head may start machines; the others have no rights in the account.
        assert ("IamInstanceProfile" in each) == (kind == "head")


def test_aws_opens_ssh_and_nothing_else_to_the_outside(aws):
    client, config = aws
    machines = [kind["node_config"] for kind in config["available_node_types"].values()]
    groups = {group for machine in machines for group in machine["SecurityGroupIds"]}
    (group,) = client.describe_security_groups(GroupIds=sorted(groups))["SecurityGroups"]
    assert group["GroupName"] == "lmc-tune"
    outside = [rule for rule in group["IpPermissions"] if rule["IpRanges"] or rule.get("Ipv6Ranges")]
    assert [(rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) for rule in outside] == [("tcp", 22, 22)]
    inside = [rule for rule in group["IpPermissions"] if rule not in outside]
    assert [pair["GroupId"] for rule in inside for pair in rule["UserIdGroupPairs"]] == [group["GroupId"]]


@pytest.mark.parametrize(
    ("plant", "match"),
    [
        ({"InstanceMarketOption": {"MarketType": "spot"}}, "InstanceMarketOption"),
        ({"MetadataOptions": {"HttpToken": "required"}}, "HttpToken"),
        ({"BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"Encrypt": True}}]}, "Encrypt"),
        ({"InstanceTyp": "g5.xlarge"}, "InstanceTyp"),
    ],
)
def test_a_typo_in_a_node_config_is_found(aws, plant, match):
    """So that starting machines means something: Ray's own validation lets all of these through."""
    config = copy.deepcopy(aws[1])
    config["available_node_types"]["gpu_spot"]["node_config"].update(plant)
    validate_config({key: value for key, value in config.items() if key != "head_node"})
    with pytest.raises(ParamValidationError, match=match):
        _launch(_provider(config), config, "gpu_spot")


def test_a_machine_that_aws_does_not_have_is_found(aws):
    """`ray up` only warns of one, and then knows of no GPU that it could start."""
    config = copy.deepcopy(aws[1])
    assert all(config["available_node_types"][kind]["resources"]["GPU"] == 1 for kind in ("gpu_spot", "gpu_on_demand"))
    config["available_node_types"]["gpu_spot"]["node_config"]["InstanceType"] = "g5.xxlarge"
    with pytest.raises(ValueError, match=r"g5\.xxlarge is not available"):
        aws_provider.AWSNodeProvider.fillout_available_node_types_resources(config)


def _plan(types: Config, gpus: int, tracker: NodeProviderAvailabilityTracker, scorer: Any) -> dict[str, int]:
    """What Ray would start for so many cohorts that want a GPU each."""
    demand = [{"CPU": 1, "GPU": 1}] * gpus

    def score(resources: Config, demands: Sequence[Config], kind: str) -> Any:
        return scorer(resources, demands, kind, node_availability_summary=tracker.summary())

    return dict(get_nodes_for(types, {}, "head", 4, demand, score)[0])


def test_refused_spot_machines_are_replaced_by_on_demand_ones_until_the_refusal_is_old(aws, monkeypatch):
    """By Ray's own launcher, tracker and scheduler, with the scorer that the head is started with."""
    config = aws[1]
    types = config["available_node_types"]
    assert types["gpu_spot"]["resources"] == types["gpu_on_demand"]["resources"]
    (start,) = _starts(config, "head_start_ray_commands")
    assert "RAY_enable_autoscaler_v2=0" in start  # the newer one asks for no scorer
    given = dict(word.split("=", 1) for word in start if word.startswith(_SCORER))
    monkeypatch.setenv(_SCORER, given[_SCORER])
    scheduler = ResourceDemandScheduler(None, types, config["max_workers"], "head", config["upscaling_speed"])
    assert scheduler.utilization_scorer is score_machine

    clock = [1_000_000.0]
    tracker = NodeProviderAvailabilityTracker(timer=lambda: clock[0])
    monkeypatch.setattr("ray.autoscaler._private.node_launcher.time.time", lambda: clock[0])
    assert _plan(types, 3, tracker, score_machine) == {"gpu_spot": 3}

    provider = _provider(config)

    class _NoSpot:
        """An EC2 that has no spot machines; moto always has."""

        def create_instances(self, **asked: Any) -> Any:
            if "InstanceMarketOptions" in asked:
                said = {"Error": {"Code": "InsufficientInstanceCapacity", "Message": "no spot"}}
                raise ClientError(said, "RunInstances")
            return provider.ec2.create_instances(**asked)

    provider.ec2_fail_fast = _NoSpot()
    launcher = BaseNodeLauncher(provider, _Pending(), _Events(), tracker)
    launcher._launch_node(config, 3, "gpu_spot")
    assert not tracker.summary().node_availabilities["gpu_spot"].is_available
    assert _plan(types, 3, tracker, score_machine) == {"gpu_on_demand": 3}
    clock[0] += 31 * 60
    assert _plan(types, 3, tracker, score_machine) == {"gpu_spot": 3}


class _Pending:
    def dec(self, kind: str, count: int) -> None: ...


class _Events:
    def add(self, *said: Any, **more: Any) -> None: ...


def test_ray_alone_does_not_fall_back(aws):
    """The reason for a scorer of our own; when this fails, it can go."""
    types = aws[1]["available_node_types"]
    tracker = NodeProviderAvailabilityTracker(timer=lambda: 0.0)
    tracker.update_node_availability("gpu_spot", 0, NodeLaunchException("none", "none", None))
    assert _plan(types, 1, tracker, _default_utilization_scorer) == {"gpu_spot": 1}

    newer = CloudResourceMonitor()
    for status, scores in ((Instance.ALLOCATION_FAILED, {}), (Instance.ALLOCATION_TIMEOUT, {"gpu_spot": 0.0})):
        newer.notify([InstanceUpdateEvent(instance_type="gpu_spot", new_instance_status=status)])
        assert newer.get_recoverable_resource_availabilities() == scores


def test_a_machine_without_a_gpu_is_not_asked_for_one(aws):
    types = aws[1]["available_node_types"]
    summary = NodeProviderAvailabilityTracker(timer=lambda: 0.0).summary()
    assert score_machine(types["head"]["resources"], [{"GPU": 1}], "head", node_availability_summary=summary) is None


def test_the_way_of_the_page_exists():
    """Every command of docs/cluster.md is one of Ray's or of lmc-tune's, with options that it has."""
    page = (_ROOT / "docs" / "cluster.md").read_text()
    blocks = "\n".join(re.findall(r"^```\n(.*?)^```", page, re.DOTALL | re.MULTILINE)).replace("\\\n", " ")
    programs = {"ray": ray_commands, "lmc-tune": typer.main.get_command(app)}
    found = 0
    for line in (line for line in blocks.splitlines() if not line.startswith(("kubectl", "aws"))):
        said = [part for one in line.split(" -- ") for part in re.split(r"['\"](?=lmc-tune)", one)]
        for program, words in [
            match for one in said for match in re.findall(r"(?:^|\s)(ray|lmc-tune) ([a-z][^'\"#)]*)", one)
        ]:
            command = programs[program]
            parts = words.split()
            while parts and hasattr(command, "commands"):
                assert parts[0] in command.commands, line
                command = command.commands[parts.pop(0)]
            options = {option for parameter in command.params for option in parameter.opts}
            assert {part for part in parts if part.startswith("-")} <= options, line
            found += 1
    assert found >= 18
