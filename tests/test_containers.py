"""The image's two recipes say the same, install what the lock says and nothing as root; read, not built."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
CONTAINERS = ROOT / "containers"
SOURCES = "/opt/src"


def dockerfile():
    """(instruction, rest) of each line, continued ones joined, comments left out."""
    text = re.sub(r"\\\n", " ", (CONTAINERS / "Dockerfile").read_text())
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(line.split(None, 1)) for line in lines]


def definition():
    """Sections of the definition file; the header is ""."""
    sections = {"": []}
    name = ""
    for line in (CONTAINERS / "orcolat.def").read_text().splitlines():
        if line.startswith("%"):
            name = line[1:].strip()
            sections[name] = []
        elif line.strip() and not line.lstrip().startswith("#"):
            sections[name].append(line.strip())
    return sections


def of(kind):
    return [rest for instruction, rest in dockerfile() if instruction == kind]


def pairs(lines, sign="="):
    return dict(line.split(sign, 1) for line in lines)


def test_both_start_from_the_same_base_with_the_same_arguments():
    args = {name: default for name, _, default in (arg.partition("=") for arg in of("ARG"))}
    assert args == pairs(definition()["arguments"])
    assert of("FROM") == ["${BASE}"]
    assert definition()[""] == ["Bootstrap: docker", "From: {{ BASE }}"]


def test_both_copy_the_same_files_to_the_same_places():
    assert of("WORKDIR")[0] == SOURCES
    copied = {source: f"{SOURCES}/{target}" for source, target in (line.split() for line in of("COPY"))}
    assert copied == pairs(definition()["files"], " ")
    assert all((ROOT / source).exists() for source in copied)


def test_both_run_the_same_steps_in_the_same_order():
    post = definition()["post"]
    assert [line for line in post if line.startswith("sh ")] == of("RUN")
    assert post[post.index("cd " + SOURCES) + 1 :] == of("RUN"), "something else is run, or elsewhere"
    settings = post[: post.index("cd " + SOURCES)]
    named = [name for name in pairs(definition()["arguments"]) if name != "BASE"]
    assert [re.search(r"export (\w+)=", line)[1] for line in settings] == named
    for name, line in zip(named, settings, strict=True):
        assert f'export {name}="{{{{ {name} }}}}"' in line


def test_a_step_needs_no_file_that_is_copied_after_it():
    script = (CONTAINERS / "install.sh").read_text()
    needs = {
        "system": [],
        "libraries": ["pyproject.toml", "env/requirements.lock"],
        "project": ["README.md", "pipeline"],
    }
    there = []
    for instruction, rest in dockerfile():
        if instruction == "COPY":
            there.append(rest.split()[0])
        elif instruction == "RUN":
            step = rest.split()[-1]
            assert f"\n{step}() {{" in script
            assert {*needs[step], "containers/install.sh"} <= set(there)


def test_both_set_the_same_environment_and_labels():
    environment = pairs(of("ENV"))
    exported = [line.removeprefix("export ") for line in definition()["environment"]]
    assert environment == pairs(exported)
    assert all(line.startswith("export ") for line in definition()["environment"])
    labels = dict(re.findall(r'(\S+)="([^"]*)"', " ".join(of("LABEL"))))
    assert labels == pairs(definition()["labels"], " ")


def test_both_show_the_help_and_run_any_command_and_not_as_root():
    assert of("CMD") == ['["orcolat", "--help"]']
    assert of("ENTRYPOINT") == []
    assert definition()["runscript"] == ["[ $# -gt 0 ] || set -- orcolat --help", 'exec "$@"']
    kinds = [instruction for instruction, _ in dockerfile()]
    assert of("USER") == ["1000"]
    assert "RUN" not in kinds[kinds.index("USER") :], "a step after USER would run as another user than Apptainer's"


def test_everything_that_is_written_at_run_time_goes_to_the_cache():
    environment = pairs(of("ENV"))
    for name in ("ORCOLAT_CACHE", "NUMBA_CACHE_DIR", "MPLCONFIGDIR", "SEISBENCH_CACHE_ROOT"):
        assert environment[name].startswith("/cache")
    made = (CONTAINERS / "install.sh").read_text()
    for folder in ("/config", "/archive", "/weights", "/runs", "/cache"):
        assert folder in made, f"{folder} is no place to mount to"


@pytest.mark.parametrize("name", ["containers/README.md", "env/cpu.sh", "env/leonardo.sh"])
def test_weights_and_cache_of_the_host_come_to_where_the_image_looks(name):
    """The image's variables go before the host's."""
    environment = pairs(of("ENV"))
    wanted = f"$ORCOLAT_WEIGHTS:{environment['ORCOLAT_WEIGHTS']}:ro,$ORCOLAT_CACHE:{environment['ORCOLAT_CACHE']}"
    (bound,) = re.findall(r'--bind "([^"]*)"', (ROOT / name).read_text())
    assert bound.endswith(wanted)


def leonardo(**variables):
    script = f'set -euo pipefail; {variables.pop("module", "")}\nsource env/leonardo.sh; echo "ready $ORCOLAT_WEIGHTS"'
    variables = {"PATH": os.environ["PATH"], "ORCOLAT_HOME": str(ROOT), **variables}
    return subprocess.run(["bash", "-c", script], env=variables, cwd=ROOT, capture_output=True, text=True, check=False)


def test_under_cron_the_environment_of_leonardo_says_what_it_lacks():
    lost = leonardo()
    assert lost.returncode
    assert "write a line WORK=" in lost.stderr
    if not Path("/etc/profile.d/modules.sh").exists():
        bare = leonardo(WORK="/work/me")
        assert (bare.returncode, "no command `module`" in bare.stderr) == (2, True)
    whole = leonardo(WORK="/work/me", module="module() { :; }")
    assert (whole.returncode, whole.stdout) == (0, "ready /work/me/orcolat-weights\n"), whole.stderr


def test_what_is_copied_is_not_ignored():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == {line.split()[0] for line in of("COPY")}


def test_the_libraries_are_those_of_the_project_and_every_version_is_locked():
    """The script takes the names from pyproject.toml; the lock must know each of them."""
    script = (CONTAINERS / "install.sh").read_text()
    assert "--constraint env/requirements.lock --requirement /tmp/libraries.txt" in script
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = [re.match(r"[\w.-]+", line)[0] for line in wanted] + ["mpich", "setuptools"]
    lock = {
        m[1].lower().replace("_", "-")
        for m in re.finditer(r"^([\w.-]+)==", (ROOT / "env/requirements.lock").read_text(), re.M)
    }
    assert not {name.lower() for name in names} - lock
    assert script.count("--no-cache-dir") == 2


def test_the_steps_find_their_commands(tmp_path):
    """The script itself, with a pip and an apt-get that only note how they were called."""
    notes = tmp_path / "notes"
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "fake"
    fake.write_text(f'#!/bin/sh\necho "$(basename "$0") $*" >>{notes}\n')
    fake.chmod(0o755)
    for name in ("apt-get", "useradd", "rm", "mkdir", "chmod"):
        (tmp_path / "bin" / name).symlink_to(fake)
    variables = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", CONTAINERS / "install.sh", "system"], env=variables, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    called = notes.read_text()
    assert "--no-install-recommends python3 python3-venv g++" in called
    assert "useradd --uid 1000" in called
    wrong = subprocess.run(["sh", CONTAINERS / "install.sh", "sytem"], check=False, capture_output=True)
    assert wrong.returncode != 0


def tool(name):
    found = shutil.which(name) or shutil.which(name, path=Path(sys.executable).parent)
    return found or pytest.skip(f"{name} is not installed: the recipes are not linted")


def test_hadolint_finds_nothing():
    done = subprocess.run([tool("hadolint"), CONTAINERS / "Dockerfile"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_shellcheck_finds_nothing():
    scripts = [CONTAINERS / "install.sh", ROOT / "tests" / "cluster" / "containers.sh"]
    done = subprocess.run([tool("shellcheck"), *scripts], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# --- Kubernetes


@pytest.fixture(scope="module")
def manifest():
    documents = yaml.safe_load_all((CONTAINERS / "dask-workers.yaml").read_text())
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


def test_the_manifest_has_the_shape_that_kubernetes_asks_for(manifest):
    versions = {"Service": "v1", "Deployment": "apps/v1", "NetworkPolicy": "networking.k8s.io/v1"}
    assert {kind for kind, _ in manifest} == set(versions)
    for (kind, _), document in manifest.items():
        assert document["apiVersion"] == versions[kind]
        assert set(document) == {"apiVersion", "kind", "metadata", "spec"}
        if kind == "Deployment":
            spec = document["spec"]
            assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
            pod = spec["template"]["spec"]
            for container in pod["containers"]:
                assert {"name", "image", "args", "resources"} <= set(container)
                assert all(isinstance(word, str) for word in container["args"]), "a number is no argument"
                assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}


def test_workers_find_the_scheduler_that_the_service_selects(manifest):
    service = manifest["Service", "orcolat-scheduler"]["spec"]
    scheduler = manifest["Deployment", "orcolat-scheduler"]["spec"]["template"]
    assert service["selector"].items() <= scheduler["metadata"]["labels"].items()
    port = service["ports"][0]["port"]
    assert str(port) in scheduler["spec"]["containers"][0]["args"]
    worker = manifest["Deployment", "orcolat-worker"]["spec"]["template"]["spec"]["containers"][0]
    assert f"tcp://orcolat-scheduler:{port}" in worker["args"]


def test_nobody_is_root_and_nobody_else_gets_in(manifest):
    for (kind, _), document in manifest.items():
        if kind != "Deployment":
            continue
        pod = document["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert str(pod["securityContext"]["runAsUser"]) == of("USER")[0]
        assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"]
        assert {"/cache", "/tmp"} == {m["mountPath"] for m in pod["containers"][0]["volumeMounts"]}
    policy = manifest["NetworkPolicy", "orcolat"]["spec"]
    assert policy["ingress"] == [{"from": [{"podSelector": policy["podSelector"]}]}]


@pytest.mark.parametrize("role", ["scheduler", "worker"])
def test_dask_knows_every_option_of_the_manifest(manifest, role):
    """Asked of the command line of the Dask that is locked."""
    from distributed.cli import dask_scheduler, dask_worker

    command = {"scheduler": dask_scheduler, "worker": dask_worker}[role].main
    args = manifest["Deployment", f"orcolat-{role}"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[:2] == ["dask", role]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in args[2:] if word.startswith("--")} <= known
    command.make_context(role, args[2:], ignore_unknown_options=False)  # raises on a value that does not suit
