"""`orcolat doctor` against things that are really broken: damaged files, full and read-only folders, no compiler."""

import errno
import hashlib
import json
import mmap
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.cluster import filesystem, machine, scratch
from pipeline.cluster.world import Alone
from pipeline.errors import ConfigError
from pipeline.formats import inputs
from pipeline.maths import checkup
from pipeline.maths.checkup import Finding, Seat
from pipeline.models.native import build
from pipeline.stages import doctor
from pipeline.stages.doctor import Asked
from tests import synth
from tests.worlds import srun

MPIEXEC = Path(sys.executable).parent / "mpiexec"
STATIONS = ("XX.ABC..HH", "XX.DEF..HH", "XX.GHI..HH")
WEIGHT = "phasenet/original"


@pytest.fixture(scope="module", autouse=True)
def _compiled_once():
    """The kernels, in the user's own cache, as other tests have them."""
    build.available()


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder with all that a configuration names: three station-days, coordinates, a weight, a reference."""
    for seed, code in enumerate(STATIONS):
        synth.station(tmp_path / "sds", seconds=60, code=code, seed=seed)
    rows = [f"XX,{code.split('.')[1]},46.0,13.{i},100" for i, code in enumerate(STATIONS)]
    (tmp_path / "stations.csv").write_text("\n".join(["network,station,latitude,longitude,elevation_m", *rows]) + "\n")
    (tmp_path / "events.csv").write_text(
        "id,type,time,latitude,longitude,depth,mag\na,earthquake,2024-06-01T00:00:10Z,46.0,13.0,5.0,1.0\n"
    )
    store = tmp_path / "store" / "phasenet"
    store.mkdir(parents=True)
    (store / "original.safetensors").write_bytes(b"tensors")
    published = {"class": "PhaseNet", "sha256": hashlib.sha256(b"tensors").hexdigest()}
    (store / "original.json").write_text(json.dumps(published))
    monkeypatch.setenv("ORCOLAT_WEIGHTS", str(tmp_path / "store"))
    monkeypatch.setenv("PATH", str(without_slurm(tmp_path / "bin")))
    day = f"{synth.DAY:%Y-%m-%d}"
    (tmp_path / "run.toml").write_text(
        f"""
        run = {{ name = "x", start = {day}T00:00:00Z, end = {day}T01:00:00Z }}
        archive = {{ root = "sds" }}
        stations = {{ files = ["stations.csv"] }}
        pick = {{ weight = "{WEIGHT}" }}
        [associate]
        center_latitude_deg = 46.0
        center_longitude_deg = 13.0
        x_km = [-50.0, 50.0]
        y_km = [-50.0, 50.0]
        [compare]
        reference_events = {{ path = "events.csv", format = "comcat" }}
        """
    )
    return tmp_path


def without_slurm(folder):
    """A path with this machine's compiler, and no Slurm."""
    folder.mkdir()
    for name in ("c++", "g++", "as", "ld", "sh"):
        found = next((p / name for p in map(Path, os.get_exec_path()) if (p / name).exists()), None)
        if found:
            (folder / name).symlink_to(found.resolve())
    return folder


def look(site, *overrides, world=None, run_dir="run"):
    return doctor.run(Asked(site / "run.toml", overrides, None, site / run_dir), world or Alone())


def by_name(findings, name):
    return [finding for finding in findings if finding.name == name]


def one(findings, name):
    (found,) = by_name(findings, name)
    return found


def archive_files(site):
    return sorted((site / "sds").rglob("*HH?.D.*"))


# --- a machine that is well


def test_a_healthy_machine_passes_every_check_and_nothing_is_left(site):
    before = {path for path in site.rglob("*") if "__pycache__" not in path.parts}
    found = look(site)
    assert [f.line for f in found if f.state == "FAIL"] == []
    asked = ("MPI", "node sharing", "rank 0", "cores", "GPUs", "config", "versions", "torch", "kernels", "caches")
    asked += ("memory", "/dev/shm", "open files", "scratch", "weights", "stations", "archive", "reference")
    asked += ("run: space", "run: files", "run: shared", "clock", "Slurm")
    assert [name for name in asked if not by_name(found, name)] == []
    assert "3 of 3 station-days" in one(found, "archive").value
    assert one(found, "reference").value.endswith("1 events, 0 picks")
    assert {path for path in site.rglob("*") if "__pycache__" not in path.parts} == before


def test_without_a_configuration_the_machine_and_the_store_are_looked_at(site):
    found = doctor.run(Asked(run_dir=site), Alone())
    assert one(found, "weights").state == "ok"
    assert not by_name(found, "archive")
    (site / "store/phasenet/original.json").unlink()
    (site / "store/phasenet/original.safetensors").unlink()
    found = one(doctor.run(Asked(run_dir=site), Alone()), "weights")
    assert (found.state, found.remedy.startswith("orcolat weights fetch")) == ("warn", True)


# --- inputs that are not well


def test_a_missing_weight(site):
    (site / "store/phasenet/original.safetensors").unlink()
    found = one(look(site), "weights")
    assert found.state == "FAIL"
    assert "original.safetensors" in found.value
    assert "orcolat weights fetch phasenet/original" in found.remedy


def test_a_weight_of_which_one_bit_is_another(site):
    (site / "store/phasenet/original.safetensors").write_bytes(b"tensorr")
    found = one(look(site), "weights")
    assert found.state == "FAIL"
    assert hashlib.sha256(b"tensors").hexdigest() in found.value
    assert "damaged" in found.line


def test_an_archive_of_garbage(site):
    for path in archive_files(site):
        path.write_bytes(os.urandom(4096))
    found = one(look(site), "archive")
    assert found.state == "FAIL"
    assert "0 of 3 station-days" in found.value
    assert str(archive_files(site)[0].name) in found.value


def test_one_station_of_garbage_is_a_warning(site):
    for path in archive_files(site):
        if "DEF" in path.name:
            path.write_bytes(os.urandom(4096))
    found = one(look(site), "archive")
    assert found.state == "warn"
    assert "2 of 3 station-days" in found.value
    assert "XX.DEF" in found.value


@contextmanager
def as_nobody():
    """Root may read everything; nobody may not."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_an_archive_that_may_not_be_read(site):
    from pipeline import config

    with tempfile.TemporaryDirectory() as open_to_all:
        root = Path(open_to_all, "sds")
        Path(open_to_all).chmod(0o755)
        shutil.move(site / "sds", root)
        loaded = config.load(site / "run.toml", [f"archive.root={root}"])
        assert inputs.archive(loaded)[0].state == "ok"
        for path in root.rglob("*HH?.D.*"):
            path.chmod(0)
        with as_nobody():
            (found,) = inputs.archive(loaded)
        assert (found.state, "Permission denied" in found.value) == ("FAIL", True)
        next(root.iterdir()).chmod(0)
        with as_nobody(), pytest.raises(ConfigError, match="may not be listed"):
            inputs.archive(loaded)
        next(root.iterdir()).chmod(0o755)


@pytest.mark.parametrize(
    ("override", "check", "word", "remedy"),
    [
        ("archive.root=nowhere", "archive", "not a folder", "correct the path, or mount the archive"),
        ("archive.bands=['BH']", "archive", "no data on 1 days", "look at archive.root, archive.layout, archive.bands"),
        ("stations.files=['none.csv']", "stations", "none.csv", "look at stations.files"),
        ("compare.reference_events.path=none.csv", "reference", "none.csv", "Check the path and the permissions"),
        ("compare.reference_events.format=ogs-dat", "reference", "events.csv", "Is it of the format that"),
        ("associate.velocity_model=none.csv", "velocity", "none.csv", "look at associate.velocity_model"),
        ("compute.scratch=nowhere", "scratch", "cannot be written to", "set compute.scratch"),
        ("compute.device=gpu", "config", "compute.device", "correct it"),
    ],
)
def test_what_the_configuration_names_and_is_not_there(site, override, check, word, remedy):
    found = one(look(site, override), check)
    assert found.state == "FAIL"
    assert word in found.value
    assert remedy in found.line


def test_days_are_spread_over_a_long_period():
    day = inputs.DAY_NS
    assert inputs.spread(5, day) == [0]
    assert inputs.spread(day - 1, 2 * day + 1) == [0, day, 2 * day]
    year = inputs.spread(0, 365 * day)
    assert len(year) == inputs.DAYS == len(set(year))
    assert year[0] == 0
    assert 350 * day < year[-1] < 365 * day


# --- folders that are not well


@pytest.fixture
def mounted(tmp_path):
    """Mounts a tmpfs; skips where this user may not."""
    points = []

    def mount(name, options):
        point = tmp_path / name
        point.mkdir(exist_ok=True)
        done = subprocess.run(
            ["/bin/mount", "-t", "tmpfs", "-o", options, "tmpfs", point], check=False, capture_output=True
        )
        if done.returncode:
            pytest.skip("may not mount a file system: no full or read-only folder is tried")
        points.append(point)
        return point

    yield mount
    for point in points:
        subprocess.run(["/bin/umount", "-l", point], check=True)


def test_a_read_only_folder(site, mounted):
    mounted("run", "ro,size=1m")
    found = look(site)
    files = one(found, "run: files")
    assert files.state == "FAIL"
    assert "Read-only file system" in files.value
    assert "--run-dir" in files.remedy
    assert not by_name(found, "run: shared")


def test_a_small_file_system_for_the_run(site, mounted):
    mounted("run", "size=4m,nr_inodes=100")
    space = one(look(site), "run: space")
    assert space.state == "warn"
    assert "tmpfs" in space.value
    assert re.search(r"\b9\d files more", space.value)


def test_a_full_file_system_for_the_run(site, mounted):
    (mounted("run", "size=64k") / "all").write_bytes(b"x" * 65536)
    found = look(site)
    assert one(found, "run: files").state == "FAIL"
    assert "No space left" in one(found, "run: files").value


def test_a_tiny_scratch(site, mounted):
    """Two ranks, of which one reads for the other, need room for one waveform."""
    small = mounted("scratch", "size=16m")
    overrides = ("compute.scorers=1", f"compute.scratch={small}")
    found = srun(2, lambda world: look(site, *overrides, world=world))
    assert found[0] == found[1]
    tiny = one(found[0], "scratch")
    assert tiny.state == "FAIL"
    assert checkup.amount(scratch.ROOM_BYTES) in tiny.value
    assert "compute.scratch" in tiny.remedy
    assert list(small.iterdir()) == []
    (small / "all").write_bytes(b"x" * (16 << 20))
    alone = one(look(site, f"compute.scratch={small}"), "scratch")
    assert (alone.state, "No space left" in alone.value) == ("FAIL", True)


def test_reserved_room_is_given_back(tmp_path, mounted):
    small = mounted("small", "size=1m")
    filesystem.take(small, 1 << 19)
    assert list(small.iterdir()) == []
    with pytest.raises(OSError) as error:
        filesystem.take(small, 1 << 21)
    assert error.value.errno == errno.ENOSPC
    assert list(small.iterdir()) == []


def test_the_kind_of_a_file_system_and_its_room(mounted, tmp_path):
    small = mounted("a b", "size=1m,nr_inodes=50")
    found = filesystem.room(small / ".")
    assert (found.kind, found.free_bytes) == ("tmpfs", 1 << 20)
    assert 40 < found.free_files < 50
    assert filesystem.existing(small / "not" / "yet") == small


def test_a_clock_that_differs(site, monkeypatch):
    assert abs(filesystem.skew_s(site)) < checkup.CLOCK_S
    real = filesystem.time.time
    for ahead_s, state in ((-30.0, "warn"), (3600.0, "FAIL")):
        monkeypatch.setattr(filesystem.time, "time", lambda ahead_s=ahead_s: real() + ahead_s)
        found = one(look(site), "clock")
        assert found.state == state
        assert f"{abs(ahead_s):.0f}" in found.value or f"{abs(ahead_s) - 0.001:.3f}" in found.value
        assert ("behind" if ahead_s > 0 else "ahead of") in found.value


# --- a machine that is not well


def test_no_compiler(site, monkeypatch):
    monkeypatch.setenv("CXX", str(site / "no-compiler"))
    monkeypatch.setenv("ORCOLAT_CACHE", str(site / "cache"))
    for cached in (build.available, build.library):
        cached.cache_clear()
    try:
        assert (one(look(site), "kernels").state, "no-compiler" in one(look(site), "kernels").value) == ("warn", True)
        assert one(look(site, "compute.engine=kernels"), "kernels").state == "FAIL"
        assert one(look(site, "compute.engine=seisbench"), "kernels").state == "ok"
    finally:
        for cached in (build.available, build.library):
            cached.cache_clear()


def test_few_open_files(site):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        found = one(look(site), "open files")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found.state == "warn"
    assert found.value.startswith("256 ")
    assert "ulimit -n" in found.remedy


def test_a_gpu_that_is_asked_for_and_not_there(site):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU: that it is missed is not tried")
    found = look(site, "compute.device=cuda")
    assert one(found, "GPUs").state == "FAIL"
    assert one(found, "torch").state == "FAIL"
    assert "--nv" in one(found, "GPUs").remedy


@pytest.mark.parametrize("version", [1, 2])
def test_the_narrowest_memory_cgroup_counts(tmp_path, monkeypatch, version):
    own, root = tmp_path / "cgroup", tmp_path / "sys"
    base, name, free = (root, "memory.max", "max") if version == 2 else (
        root / "memory", "memory.limit_in_bytes", "9223372036854771712"
    )  # fmt: skip
    own.write_text("0::/slurm/job/step\n" if version == 2 else "5:cpu:/x\n4:cpuset,memory:/slurm/job/step\n")
    for path, limit in (("slurm", free), ("slurm/job", "1048576"), ("slurm/job/step", "2097152")):
        (base / path).mkdir(parents=True)
        (base / path / name).write_text(f"{limit}\n")
    monkeypatch.setattr(machine, "CGROUPS", root)
    monkeypatch.setattr(machine, "OWN_CGROUP", own)
    assert machine.memory_limit() == (1048576, "its cgroup's limit")
    assert checkup.memory(*machine.memory_limit(), 1).state == "warn"
    own.unlink()
    assert machine.memory_limit()[1] == "the machine's"


def test_segments_that_nobody_has_mapped_any_more(tmp_path):
    for name in ("mpich_shm_used", "mpich_shm_left", "other"):
        (tmp_path / name).write_bytes(b"x" * 4096)
    with (tmp_path / "mpich_shm_used").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ):
        assert machine.left_behind(tmp_path) == [tmp_path / "mpich_shm_left"]
    assert len(machine.left_behind(tmp_path)) == 2
    assert checkup.shared_memory(1e9, 2, 1).state == "warn"
    assert checkup.shared_memory(None, 0, 2).state == "FAIL"
    assert checkup.shared_memory(1e6, 0, 4).state == "warn"


# --- several ranks


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ("hand", 1)),
        ({"PMI_SIZE": "4", "PMI_RANK": "1"}, ("mpiexec", 4)),
        ({"SLURM_STEP_NUM_TASKS": "8", "PMI_SIZE": "8"}, ("srun", 8)),
        ({"SLURM_STEP_NUM_TASKS": "2", "PMI_SIZE": "8", "MPI_LOCALNRANKS": "8"}, ("mpiexec", 8)),
        ({"OMPI_COMM_WORLD_SIZE": "3", "SLURM_STEP_NUM_TASKS": "1"}, ("Open MPI's mpiexec", 3)),
    ],
)
def test_who_started_the_ranks(monkeypatch, variables, expected):
    for name in (*machine.STARTED, machine.HYDRA):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert machine.launcher() == expected


def command(site, *arguments, prefix=(), **variables):
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "mpi4py", "-m", "pipeline", "doctor", "--json", *arguments],
        env={**os.environ, **variables},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout, done.stderr
    said = json.loads(done.stdout)
    return done.returncode, said["ok"], [Finding(**finding) for finding in said["checks"]]


@pytest.mark.skipif(not MPIEXEC.exists(), reason="no mpiexec beside this Python: real ranks are not looked at")
def test_every_rank_of_mpiexec_reports(site):
    arguments = (str(site / "run.toml"), "--run-dir", str(site / "run"), "--set", "compute.scorers=1")
    code, ok, found = command(site, *arguments, prefix=(MPIEXEC, "-n", "3"))
    assert (code, ok) == (0, True)
    assert one(found, "MPI").value.startswith("3 rank(s) on 1 node(s), started by mpiexec")
    assert "scores on cpu for rank(s) 1-2" in one(found, "rank 0").value
    assert "reads for rank 0" in one(found, "ranks 1-2").value
    assert "all 3 rank(s) see it" in one(found, "run: shared").value
    assert one(found, "node sharing").state == "ok"
    assert checkup.amount(2 * scratch.ROOM_BYTES) in one(found, "scratch").value


def test_ranks_that_do_not_find_each_other(site):
    """As with an `srun --mpi=` that does not suit the library: four processes, each of them the only one."""
    code, ok, found = command(site, "--run-dir", str(site), SLURM_STEP_NUM_TASKS="4")
    assert (code, ok) == (2, False)
    assert one(found, "MPI").state == "FAIL"
    assert "but 4 processes were started" in one(found, "MPI").value
    assert "pmi2" in one(found, "MPI").remedy


def test_of_many_ranks_one_makes_the_file(tmp_path):
    won = srun(8, lambda world: filesystem.made(tmp_path / "claim"))
    assert checkup.exclusive(won).state == "ok"
    assert checkup.exclusive([True, True, False]).state == "FAIL"
    assert checkup.exclusive([False, False]).state == "FAIL"
    blind = checkup.exclusive([True, None, False, None])
    assert (blind.state, "1,3" in blind.value) == ("FAIL", True)


def seats(*hosts, cores=1, gpus=(), does="reads and scores on cpu"):
    return [
        Seat(rank, host, tuple(r for r, other in enumerate(hosts) if other == host), (rank % cores,), gpus, does)
        for rank, host in enumerate(hosts)
    ]


def test_ranks_of_one_node_that_share_no_memory():
    assert checkup.sharing(seats("a", "a", "b")).state == "ok"
    apart = [Seat(r, "a", (r,), (0,), (), "") for r in range(2)]
    assert (checkup.sharing(apart).state, "MPIR_CVAR_NOLOCAL" in checkup.sharing(apart).remedy) == ("warn", True)


def test_more_threads_than_cores():
    assert checkup.processors(seats("a", "a", cores=2), threads=1).state == "ok"
    crowded = checkup.processors(seats("a", "a", "b", cores=2), threads=2)
    assert (crowded.state, "4 on 2 core(s) of a" in crowded.value) == ("warn", True)


def test_gpus_that_are_missing_on_one_node_or_idle():
    two = seats("a", "b", gpus=("u1",), does="reads and scores on cuda:0")
    assert checkup.devices(two, "cuda").state == "ok"
    assert checkup.devices([two[0], seats("a", "b")[1]], "cuda").state == "FAIL"
    idle = seats("a", gpus=("u1", "u2"), does="reads and scores on cuda:0")
    assert checkup.devices(idle, "cuda").state == "warn"
    assert checkup.devices(seats("a"), "cpu").state == "ok"


def test_what_is_equal_on_all_nodes_is_said_once():
    same = [Finding("memory", "ok", "8 GB", "", host) for host in ("n1", "n2")]
    assert checkup.merged(same) == [Finding("memory", "ok", "8 GB")]
    other = [*same, Finding("memory", "warn", "1 GB", "more", "n3")]
    assert [f.where for f in checkup.merged(other)] == ["n1, n2", "n3"]
    versions = [Finding("versions", "ok", v, "", host) for host, v in (("n1", "1"), ("n2", "2"), ("n3", "2"))]
    assert [(f.state, f.where) for f in checkup.merged(versions)] == [("FAIL", "n1"), ("FAIL", "n2, n3")]


# --- Slurm, by commands that answer as it does


@pytest.fixture
def fake_slurm(site):
    def install(refusal=""):
        for name, text in {
            "scontrol": "echo slurm 22.05.8",
            "squeue": "true",
            "sinfo": "echo main",
            "sbatch": f'echo "$@" >>{site}/asked; case "$*" in *partition=nowhere*) echo "sbatch: error: invalid '
            'partition specified: nowhere" >&2; exit 1;; esac',
        }.items():
            path = site / "bin" / name
            path.write_text(f"#!/bin/sh\n{refusal or text}\n")
            path.chmod(0o755)

    return install


def test_slurm_is_asked_and_nothing_is_handed_in(site, fake_slurm):
    fake_slurm()
    found = by_name(look(site, "slurm.partition=main", "slurm.account=me"), "Slurm")
    assert [f.state for f in found] == ["ok", "ok"]
    assert "22.05.8" in found[0].value
    asked = (site / "asked").read_text().splitlines()
    assert len(asked) == 2
    assert all("--test-only" in line and "--partition=main" in line and "--account=me" in line for line in asked)


def test_a_partition_that_slurm_does_not_know(site, fake_slurm):
    fake_slurm()
    found = by_name(look(site, "slurm.partition=nowhere"), "Slurm")
    assert {f.state for f in found} == {"FAIL"}
    assert "invalid partition specified: nowhere" in found[0].value
    assert "[slurm]" in found[0].remedy


def test_commands_of_slurm_without_a_cluster(site, fake_slurm):
    fake_slurm("echo 'error: Unable to contact slurm controller' >&2; exit 1")
    assert one(look(site), "Slurm").state == "warn"


def test_a_job_without_the_commands_of_slurm(site, monkeypatch):
    """As in a container that does not have them."""
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    found = one(look(site), "Slurm")
    assert found.state == "warn"
    assert "no squeue and no scontrol here" in found.value
    assert "`orcolat submit` again" in found.remedy
    monkeypatch.delenv("SLURM_JOB_ID")
    assert one(look(site), "Slurm").state == "ok"


# --- what is said


def test_lines_and_exit_codes_of_the_command(site, capsys):
    assert main(["doctor", str(site / "run.toml"), "--run-dir", str(site)]) == 0
    *lines, verdict = capsys.readouterr().out.splitlines()
    assert all(re.match(r"(ok  |warn|FAIL)  \S", line) for line in lines)
    assert re.fullmatch(rf"{len(lines)} checks, \d+ warning\(s\), 0 failed", verdict)
    (site / "store/phasenet/original.safetensors").unlink()
    assert main(["doctor", str(site / "run.toml"), "--run-dir", str(site)]) == 2
    out = capsys.readouterr().out
    assert re.search(r"^FAIL  weights  .* -> run `orcolat weights fetch", out, re.M)
    assert out.rstrip().endswith("1 failed: weights")


def test_a_wrong_configuration_is_a_finding_and_the_rest_is_looked_at(site, capsys):
    (site / "run.toml").write_text("[run]\n")
    assert main(["doctor", str(site / "run.toml"), "--run-dir", str(site), "--json"]) == 2
    found = [Finding(**finding) for finding in json.loads(capsys.readouterr().out)["checks"]]
    assert (one(found, "config").state, one(found, "run: files").state) == ("FAIL", "ok")
    assert one(found, "config").remedy
