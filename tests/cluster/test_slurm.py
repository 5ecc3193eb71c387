"""A cluster that fails and a run that does not: the demo's campaign through real jobs of a real Slurm, with faults.

`make test-cluster` starts Slurm on this machine (as root), with four virtual nodes of two CPUs, and ends it again.
"""

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.cluster import claims
from pipeline.formats import results
from pipeline.rundir import RunDir
from tests.cluster import campaign
from tests.weights_at_hand import need

pytestmark = pytest.mark.cluster
HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
PYTHON = Path(sys.executable)
RESULTS = ("shards.parquet", "picks", "outcomes", "catalogue", "compare")
DAYS, NODES = 3, 4
SHARDS = 16 * DAYS
ONCE = "48 shards, 1.99 station-days of data"  # what was spent, if each was picked once
PATIENCE_S = 240
SITE = """
[slurm]
nodes = 1
ranks_per_node = 1
time_limit = "00:10:00"
max_tasks = 4
task_s = 1.0
"""
MODEST = {"OMP_NUM_THREADS": "1", "ORCOLAT_VENV": str(PYTHON.parents[1])}


def until(what, wanted="", every_s=0.1, patience_s=PATIENCE_S):
    """The first value of ``what()`` that counts as true."""
    end = time.monotonic() + patience_s
    while not (found := what()):
        assert time.monotonic() < end, f"waited {patience_s} s for: {wanted or what}"
        time.sleep(every_s)
    return found


def free_port():
    """The first of 40 ports that nobody listens on."""
    for port in range(17300, 19300, 40):
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)):
                return port
    raise AssertionError("no free port between 17300 and 19300")


@dataclass(frozen=True)
class Cluster:
    folder: Path
    env: dict[str, str]

    def ask(self, *command):
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout

    def jobs(self):
        """Of every job that Slurm still knows, what `scontrol` says."""
        lines = self.ask("scontrol", "--oneliner", "show", "job").splitlines()
        return [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines if line.startswith("JobId=")]

    def quiet(self):
        done = subprocess.run(["squeue", "-h"], env=self.env, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode == 0 and not done.stdout.strip()

    def daemon(self, name):
        found = [line.split() for line in (self.folder / "pids").read_text().splitlines()]
        return [int(pid) for who, pid, _ in found if who == name][-1]

    def start(self, node):
        """A slurmd for ``node``, which had died."""
        with (self.folder / "log" / f"slurmd.{node}.out").open("a") as out:
            started = subprocess.Popen(
                ["slurmd", "-D", "-N", node], env=self.env, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip
        with (self.folder / "pids").open("a") as pids:
            pids.write(f"slurmd.{node} {started.pid} {claims.born(started.pid)}\n")
        until(lambda: self.idle() == NODES, "all nodes are back")

    def idle(self):
        return len(self.ask("sinfo", "-h", "-N", "-t", "idle", "-p", "main", "-o", "%n").split())


@pytest.fixture(scope="module")
def cluster():
    folder = Path(tempfile.mkdtemp(prefix="oslurm-", dir="/var/tmp"))  # short: munge's socket lies in it
    env = {**os.environ, **MODEST, "R": str(folder), "PORT": str(free_port())}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or the daemons would stay
    up = subprocess.run([HERE / "slurm_up.sh", "--db"], env=env, capture_output=True, text=True, check=False)
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        yield Cluster(folder, {**env, "SLURM_CONF": str(folder / "slurm.conf")})
    finally:
        subprocess.run([HERE / "slurm_down.sh"], env=env, check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    need("phasenet/original")
    return campaign.write(tmp_path_factory.mktemp("campaign"), DAYS)


def orcolat(*args, env=None):
    command = [PYTHON, "-m", "pipeline", *map(str, args)]
    env = env or {**os.environ, **MODEST}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory):
    """What a plain `orcolat run` makes of the campaign."""
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    done = orcolat("run", config, "--run-dir", run_dir)
    assert done.returncode == 0, done.stderr[-3000:]
    return snapshot(run_dir)


def snapshot(run_dir):
    files = [p for name in RESULTS for p in [run_dir / name, *sorted((run_dir / name).rglob("*"))] if p.is_file()]
    return {str(path.relative_to(run_dir)): path.read_bytes() for path in files}


@pytest.fixture
def job(cluster, config, tmp_path):
    (tmp_path / "site.toml").write_text(SITE)
    job = Job(cluster, config, tmp_path / "run", tmp_path / "site.toml")
    yield job
    cluster.ask("scancel", "--user", str(os.getuid()))
    until(cluster.quiet, "no job is left")
    until(lambda: not job.ranks(), "no process is left", patience_s=60)


@dataclass
class Job:
    """A campaign in one run directory, and how its jobs go."""

    cluster: Cluster
    config: Path
    run_dir: Path
    site: Path

    def submit(self, **settings):
        """`orcolat submit`; ``settings`` are keys of [slurm], or whole with a section before "__"."""
        changes = [f"{k.replace('__', '.') if '__' in k else f'slurm.{k}'}={v}" for k, v in settings.items()]
        changes = [argument for change in changes for argument in ("--set", change)]
        given = ("--run-dir", self.run_dir, "--site", self.site, *changes)
        done = orcolat("submit", self.config, *given, env=self.cluster.env)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def ids(self):
        return json.loads(sorted((self.run_dir / "jobs").glob("*.json"))[-1].read_text())["jobs"]

    def named(self, name):
        """What Slurm knows of the jobs of the last submission: "pick" are the tasks of the array."""
        number = self.ids()[name]
        return [job for job in self.cluster.jobs() if number in (job["JobId"], job.get("ArrayJobId"))]

    def ranks(self):
        """The processes that pick, with their variables."""
        found = {}
        for path in Path("/proc").iterdir():
            try:
                command = (path / "cmdline").read_bytes().split(b"\0") if path.name.isdecimal() else []
                if b"pick" in command and b"pipeline" in command and os.fsencode(self.run_dir) in command:
                    pairs = (path / "environ").read_bytes().split(b"\0")
                    variables = dict(pair.decode().split("=", 1) for pair in pairs if b"=" in pair)
                    if "SLURM_PROCID" in variables and b"srun" not in command[0]:
                        found[int(path.name)] = variables
            except (FileNotFoundError, ProcessLookupError):  # it ended just now
                continue
        return found

    def booked(self):
        """How many starts of jobs Slurm's records hold; they lag behind."""
        path = self.run_dir / "accounting.json"
        bill = json.loads(path.read_text()) if path.exists() else {"starts": 0, "ends": {}}
        return 0 if "RUNNING" in bill["ends"] else bill["starts"]

    def parts(self):
        return len(list(self.run_dir.glob("parts/*/*.parquet")))

    def at_work(self, parts=4):
        """The ranks, some time after the first shards."""
        until(lambda: self.parts() >= parts, "the first shards", every_s=0.02)
        return self.ranks()

    def held(self, task=""):
        """The pid of a rank (of that task of the array) that is stopped in the midst of a shard."""
        return until(lambda: self._stop(task), f"a rank of task {task} at work", every_s=0.01)

    def _stop(self, task):
        for path in self.run_dir.glob("claims/block-*"):
            seen = claims.look(path)
            if seen and seen.in_work and seen.who.array.endswith(f"_{task}" if task else ""):
                with suppress(ProcessLookupError):
                    os.kill(seen.who.pid, signal.SIGSTOP)
                    until(lambda pid=seen.who.pid: of_status(pid, "State").startswith("T"), "a stopped process")
                    still = claims.look(path)
                    if still and still.mark == seen.mark and still.in_work:
                        return seen.who.pid
                    os.kill(seen.who.pid, signal.SIGCONT)
        return None

    def restarts(self):
        """How often each task of the array was put back in line."""
        return [int(task["Restarts"]) for task in self.named("pick")]

    def end(self):
        """Wait until all jobs have ended; the exit codes of the last submission by its jobs."""
        until(self.cluster.quiet, "all jobs end", every_s=0.3)
        return {name: [task["ExitCode"].split(":")[0] for task in self.named(name)] for name in self.ids()}

    def missing(self):
        """Shards with no result, and those of them that are not on record as failed."""
        run_dir = RunDir(self.run_dir)
        plan, outcomes = results.planned(run_dir), results.outcomes(run_dir)
        without = {shard.id for shard in plan.rows()} - set(outcomes.shard[outcomes.end != "failed"].tolist())
        return without, without - {failed.shard for failed in results.failures(run_dir)}

    def honest(self, codes):
        """No job reports success over missing work; the last one says how the run stands."""
        status = orcolat("status", self.run_dir)
        assert codes["report"] == [str(status.returncode)], (codes, self.logs())
        without, open_ = self.missing()
        assert status.returncode == (3 if without else 0)
        counts = {what: int(n) for n, what in re.findall(r"(\d+) (failed|set aside|missing)", status.stdout)}
        assert counts["failed"] + counts.get("set aside", 0) == len(without - open_)
        assert counts["missing"] == len(open_)
        if without:
            assert "0" not in codes["pick"], (codes, self.logs())
        if open_:
            assert "0" not in codes["associate"], (codes, self.logs())
            assert not (self.run_dir / "catalogue" / "events.parquet").exists()
        return status

    def finish(self):
        """Hand in what is left until nothing is: what an operator does who reads the last line of the report."""
        for again in range(3):
            codes = self.end()
            status = self.honest(codes)
            if status.returncode == 0:
                return again
            self.submit()
        raise AssertionError(f"still incomplete: {status.stdout}\n{self.logs()}")

    def logs(self):
        return "\n".join(f"== {p.name}\n{p.read_text()[-1500:]}" for p in sorted(self.run_dir.glob("logs/*.log")))

    def log_of_picking(self):
        return "".join(path.read_text() for path in sorted(self.run_dir.glob("logs/pick-*.log")))


def test_array_associate_and_report_over_four_nodes(job, alone):
    said = job.submit(ranks_per_node=2)
    assert f"{SHARDS} shards for 4 tasks of 1 node(s) x 2 ranks" in said
    assert list(job.ids()) == ["pick", "associate", "report"]
    codes = job.end()
    assert job.honest(codes).returncode == 0, job.logs()
    assert codes["associate"] == codes["report"] == ["0"]
    assert set(codes["pick"]) <= {"0", "3"}, job.logs()
    assert {task["NodeList"] for task in job.named("pick")} == {"n1", "n2", "n3", "n4"}
    assert snapshot(job.run_dir) == alone
    assert ONCE in orcolat("status", job.run_dir).stdout, "a shard was done twice"
    until(lambda: orcolat("account", job.run_dir, env=job.cluster.env) and job.booked() == 6, "sacct knows 6 jobs")
    bill = json.loads((job.run_dir / "accounting.json").read_text())
    assert bill["core_h"] > 0
    assert 0.1 < bill["peak_gb"] < 4


def test_a_rank_is_killed(job, alone):
    job.submit(ranks_per_node=2, max_tasks=2)
    victim = random.Random(5).choice(sorted(job.at_work()))
    os.kill(victim, signal.SIGKILL)
    assert job.finish() <= 1
    assert snapshot(job.run_dir) == alone


def test_a_node_is_lost(job, alone):
    """All processes of a node die at once: Slurm takes it for dead and starts its task elsewhere."""
    job.submit(nodes=1, max_tasks=3)
    variables = job.ranks()[job.held()]
    node, number = variables["SLURMD_NODENAME"], variables["SLURM_JOB_ID"]
    for pid in (job.cluster.daemon(f"slurmd.{node}"), *step_daemons(number), *processes_of(number)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    try:
        until(lambda: "down" in job.cluster.ask("sinfo", "-h", "-N", "-n", node, "-o", "%t"), "the node is down")
        until(lambda: max(job.restarts(), default=0) == 1, "its task is put back in line")
        assert job.finish() == 0
        assert node not in {task["NodeList"] for task in job.named("pick") if task["Restarts"] == "1"}
    finally:
        job.cluster.start(node)
    assert snapshot(job.run_dir) == alone
    assert "the process died while" in job.log_of_picking()


def step_daemons(number):
    """Of a job's steps; what they run has the job's variables, but they have not."""
    return having("cmdline", f"slurmstepd: [{number}.", str.startswith)


def processes_of(number):
    """The batch script of a job, its srun and its ranks."""
    return having("environ", f"SLURM_JOB_ID={number}")


def having(file, text, like=str.__eq__):
    """The processes that have such a word in one of these files of /proc."""
    found = []
    for path in Path("/proc").iterdir():
        try:
            words = (path / file).read_bytes().decode("utf-8", "replace").split("\0") if path.name.isdecimal() else []
            if any(like(word, text) for word in words):
                found.append(int(path.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def test_a_task_is_requeued(job, alone):
    job.submit(max_tasks=2)
    job.held(task="1")
    job.cluster.ask("scontrol", "requeue", f"{job.ids()['pick']}_1")
    assert job.finish() == 0
    assert snapshot(job.run_dir) == alone
    assert sorted(job.restarts()) == [0, 1]


def test_tasks_are_preempted(job, alone):
    """A job with all nodes for itself, in a partition that goes before: tasks stop and come back."""
    job.submit(partition="low")
    job.held()
    urgent = job.cluster.ask(
        "sbatch", "--parsable", "-p", "main", "-N4", "--exclusive", "-o", "/dev/null", "--wrap=true"
    )
    until(
        lambda: [j["JobState"] for j in job.cluster.jobs() if j["JobId"] == urgent.strip()] == ["COMPLETED"], "urgent"
    )
    assert job.finish() == 0, "a preempted task comes back by itself"
    assert snapshot(job.run_dir) == alone
    assert max(job.restarts()) == 1


def test_a_cancelled_array_stays_cancelled(job, alone):
    """The signal is that of a preemption; the next submission does what is left."""
    job.submit(max_tasks=2, slurm__after__ranks=2)
    job.held(task="0"), job.held(task="1")
    job.cluster.ask("scancel", job.ids()["pick"])
    codes = job.end()
    assert {task["JobState"] for task in job.named("pick")} == {"CANCELLED"}, job.logs()
    assert job.missing()[1]
    assert codes["associate"] == codes["report"] == ["3"], "several ranks agree on it"
    job.submit()
    assert job.finish() == 0
    assert snapshot(job.run_dir) == alone


def test_the_time_limit_is_near(job, alone):
    """Told by USR1, a task finishes its shard, ends with nothing claimed, and puts itself back in line."""
    job.submit(max_tasks=1, time_limit="00:02:00", signal_s=90, max_requeues=20)
    pid = job.held()  # so that there is work left when the signal comes, within half a minute
    with suppress(ProcessLookupError):  # on a slow machine it has been told already
        until(lambda: told(pid, signal.SIGUSR1), "USR1")
        os.kill(pid, signal.SIGCONT)
    assert job.finish() == 0
    assert snapshot(job.run_dir) == alone
    assert [task["Restarts"] for task in job.named("pick")] > ["0"]
    assert "told to stop by SIGUSR1" in job.log_of_picking()
    assert "is back in line (1 of 20)" in job.log_of_picking()


def told(pid, number):
    """Whether a signal waits for a process."""
    return int(of_status(pid, "ShdPnd"), 16) >> (number - 1) & 1


def of_status(pid, field):
    """What the kernel says of a process."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError as e:
        raise ProcessLookupError from e
    return re.findall(rf"^{field}:\s*(.*)", text, re.MULTILINE)[0]


@pytest.fixture
def small(tmp_path):
    """A file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_the_scratch_is_full(job, alone, small):
    job.submit(ranks_per_node=2, max_tasks=2, compute__scorers=1, compute__scratch=small)
    job.honest(job.end())
    assert len(job.missing()[1]) == SHARDS
    assert "no room for a waveform" in job.log_of_picking()
    subprocess.run(["mount", "-o", "remount,size=500m", small], check=True)
    job.submit(ranks_per_node=2, max_tasks=2, compute__scorers=1, compute__scratch=small)
    assert job.finish() == 0
    assert snapshot(job.run_dir) == alone
    assert list(small.iterdir()) == []


def test_a_file_is_corrupt(job, alone):
    """The one shard is named, the rest is as always; with the file back, so is all."""
    (file,) = job.config.parent.glob("archive/sds/2024/XD/AMPE/HHZ.D/*.126")
    whole, times = file.read_bytes(), (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    file.write_bytes(b"\0" * len(whole))
    try:
        job.submit()
        status = job.honest(job.end())
        assert status.returncode == 3
        assert re.findall(r"^ +(?:failed|aside) +(\S+?):", status.stdout, re.MULTILINE) == ["2024-05-05/XD.AMPE..HH"]
        assert "48 planned = 47 picked + 0 empty" in status.stdout
    finally:
        file.write_bytes(whole)
        os.utime(file, ns=times)
    orcolat("retry", job.run_dir)
    job.submit()
    assert job.finish() == 0
    assert picks_and_events(snapshot(job.run_dir)) == picks_and_events(alone)


def picks_and_events(files):
    """The plan knows when the file was changed; the days beside it, that they had to do without it as context; and the
    reasons of missed events, what plan and outcomes they were made of."""
    made_of = ("shards", "outcomes", "compare/missed")
    return {name: data for name, data in files.items() if not name.startswith(made_of)}


def test_handed_in_twice_at_once(job, alone):
    job.submit(max_tasks=2)
    job.submit(max_tasks=2)
    assert job.finish() == 0
    assert snapshot(job.run_dir) == alone
    assert ONCE in orcolat("status", job.run_dir).stdout, "a shard was done twice"


def nightly(command, cluster, config, runs, **variables):
    env = {**cluster.env, "ORCOLAT_HOME": str(ROOT), **variables}
    command = [*command, str(ROOT / "jobs" / "nightly.sh"), str(config), "--runs", str(runs)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_nightly_as_a_job(cluster, config, tmp_path):
    asked = ["sbatch", "--wait", "-n2", f"--output={tmp_path}/said", f"--error={tmp_path}/log"]
    done = nightly(asked, cluster, config, tmp_path / "nights", ORCOLAT_DAY="2024-05-06")
    assert done.returncode == 0, (tmp_path / "log").read_text()[-2000:]
    (line,) = (tmp_path / "said").read_text().splitlines()
    assert line.startswith("2024-05-06 complete: Found 30 of 30 reference events")
    assert Path(line.split()[-1]) == tmp_path / "nights" / "2024-05-06" / "report" / "index.html"


def test_nightly_by_cron_on_a_workstation_says_what_is_wrong(cluster, config, tmp_path):
    site = {"ORCOLAT_ENV": str(ROOT / "env" / "workstation.sh"), "ORCOLAT_DAY": "2024-01-01"}
    done = nightly(["bash"], cluster, config, tmp_path / "nights", **site)
    assert done.returncode == 2, done.stderr[-2000:]
    (line,) = done.stdout.splitlines()
    assert line.startswith("2024-01-01 FAILED: archive.root")
