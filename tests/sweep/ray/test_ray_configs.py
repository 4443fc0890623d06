"""The cluster files: fields, commands that our parser takes, and Ray's own schema."""

import shlex
from pathlib import Path

import pytest
import yaml

from vidcfg.sweep.__main__ import parser

ROOT = Path(__file__).parents[3]
CLUSTER = ROOT / "configs" / "cluster"
LAUNCHER = ["ray_autoscaler_aws.yaml", "ray_on_premise.yaml"]


def read(name):
    return yaml.safe_load((CLUSTER / name).read_text())


def test_every_cluster_file_is_checked_here():
    names = sorted(path.name for path in CLUSTER.glob("*.yaml"))
    assert names == sorted([*LAUNCHER, "kuberay_rayjob.yaml"])


def test_the_rayjob_runs_a_command_that_the_sweep_takes():
    words = shlex.split(read("kuberay_rayjob.yaml")["spec"]["entrypoint"])
    assert words[:3] == ["python", "-m", "vidcfg.sweep"]
    arguments = parser().parse_args(words[3:])
    assert arguments.address == "auto"


def test_the_sweep_file_of_the_rayjob_is_mounted_where_the_command_looks():
    spec = read("kuberay_rayjob.yaml")["spec"]
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (container,) = head["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = {volume["name"] for volume in head["volumes"]}
    assert set(mounts) <= volumes
    config = parser().parse_args(shlex.split(spec["entrypoint"])[3:]).config
    assert Path(config).parent == Path(mounts["sweep"])


def test_the_rayjob_has_what_kuberay_asks_for():
    job = read("kuberay_rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (group,) = cluster["workerGroupSpecs"]
    assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    # Quantities and start parameters are texts in this API.
    assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    (container,) = group["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == container["resources"]["requests"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    images = {
        one["image"]
        for part in (cluster["headGroupSpec"], group)
        for one in part["template"]["spec"]["containers"]
    }
    assert len(images) == 1, "head and workers have one image"


@pytest.mark.parametrize("name", LAUNCHER)
def test_ray_accepts_the_launcher_file(name):
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(read(name)))


@pytest.mark.parametrize("name", LAUNCHER)
def test_machines_of_the_launcher_get_what_renders_and_sweeps(name):
    (command,) = read(name)["setup_commands"]
    (package,) = (word for word in shlex.split(command) if "/vidcfg" in word)
    assert {"render", "sweep"} <= set(package.partition("[")[2].rstrip("]").split(","))


@pytest.mark.parametrize("name", LAUNCHER)
def test_ray_refuses_the_launcher_file_with_a_field_that_it_does_not_know(name):
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises(Exception, match="spot_price"):
        validate_config(prepare_config({**read(name), "spot_price": 1}))


def test_a_machine_of_the_launcher_holds_a_worker_with_a_gpu():
    from vidcfg.sweep.ray_cluster import Need

    types = read("ray_autoscaler_aws.yaml")["available_node_types"]
    assert Need(cpus=8, gpus=1).fitting(types["gpu_spot"]["resources"]) == 1
    assert Need(cpus=8, gpus=1).fitting(types["head"]["resources"]) == 0
    market = types["gpu_spot"]["node_config"]["InstanceMarketOptions"]
    assert market == {"MarketType": "spot"}
