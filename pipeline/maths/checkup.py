"""What `orcolat doctor` finds, judged and put into words: numbers in, findings out.

The limits are those of our own measurements (docs/performance.md) and of the libraries' defaults.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Literal

State = Literal["ok", "warn", "FAIL"]
RANK_BYTES = 900_000_000  # peak of a rank that reads and scores
SHM_BYTES = 16 << 20  # of /dev/shm a rank, for MPI's own messages
RUN_BYTES, RUN_FILES = 1 << 30, 10_000  # less is left soon
OPEN_FILES = 1024
CLOCK_S = 2.0  # a file is never younger than the claim on it by more than this
MUNGE_S = 300.0  # Slurm's messages are refused beyond
FSYNC_S = 1.0
LONGEST = 400  # letters of an error that are shown
ALIKE = "give all nodes the same environment and the same code: results would differ in their last bits"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's answer."""

    name: str
    state: State
    value: str
    remedy: str = ""
    where: str = ""  # the host it was found on; "" where it is one for all

    @property
    def line(self) -> str:
        value = f"{self.where}: {self.value}" if self.where else self.value
        return f"{self.state:4}  {self.name:16}  {value}" + (f" -> {self.remedy}" if self.remedy else "")


@dataclass(frozen=True, slots=True)
class Seat:
    """A rank as it found itself."""

    rank: int
    host: str
    shares: tuple[int, ...]  # the ranks it shares memory with, itself among them
    cores: tuple[int, ...]  # that it may use
    gpus: tuple[str, ...]  # that it sees
    does: str  # "reads and scores on cpu"


def of_error(name: str, error: BaseException, state: State = "FAIL", remedy: str = "") -> Finding:
    """A check that ended with an error; our own messages have the remedy after a semicolon."""
    text = " ".join(str(error).split()) or type(error).__name__
    value, _, told = text.partition("; ")
    return Finding(name, state, f"{value[:LONGEST]} ..." if len(value) > LONGEST else value, told or remedy)


def text(findings: Sequence[Finding]) -> str:
    """One line a finding, and the verdict."""
    failed = [finding.name for finding in findings if finding.state == "FAIL"]
    warned = [finding.name for finding in findings if finding.state == "warn"]
    verdict = f"{len(findings)} checks, {len(warned)} warning(s), {len(failed)} failed"
    return "\n".join([*(finding.line for finding in findings), verdict + (f": {', '.join(failed)}" if failed else "")])


def as_json(findings: Sequence[Finding]) -> str:
    return json.dumps({"ok": healthy(findings), "checks": [asdict(finding) for finding in findings]}, indent=1)


def healthy(findings: Iterable[Finding]) -> bool:
    return all(finding.state != "FAIL" for finding in findings)


def merged(found: Sequence[Finding]) -> list[Finding]:
    """Findings of several hosts; equal ones become one. The first of a name sets the order.

    Where hosts differ, theirs are named; what decides the results may not differ.
    """
    rows: list[Finding] = []
    for name in dict.fromkeys(finding.name for finding in found):
        same: dict[Finding, list[str]] = {}
        for finding in found:
            if finding.name == name:
                same.setdefault(replace(finding, where=""), []).append(finding.where)
        if len(same) == 1:
            rows += same
        else:
            apart = [replace(one, where=", ".join(sorted(set(hosts)))) for one, hosts in same.items()]
            rows += [replace(one, state="FAIL", remedy=ALIKE) if name == "versions" else one for one in apart]
    return rows


def spans(numbers: Iterable[int]) -> str:
    """[0, 1, 2, 5] as "0-2,5"."""
    runs = groupby(enumerate(sorted(set(numbers))), key=lambda pair: pair[1] - pair[0])
    ends = [(members[0][1], members[-1][1]) for members in (list(run) for _, run in runs)]
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ends)


def amount(n_bytes: float) -> str:
    """Bytes for people: "1.5 GB"."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if n_bytes < 1000 or unit == "TB":
            break
        n_bytes /= 1000
    return f"{n_bytes:.3g} {unit}"


def launch(size: int, launcher: tuple[str, int], library: str, n_hosts: int) -> Finding:
    """Whether as many ranks found each other as were started: by whom, and how many."""
    by, started = launcher
    value = f"{size} rank(s) on {n_hosts} node(s), started by {by}; {library or 'no MPI library'}"
    if started > size:
        remedy = (
            "the launcher and the MPI library do not understand each other: try another `srun --mpi=` "
            "(`srun --mpi=list`; MPICH: pmi2), or the mpiexec of that library"
        )
        return Finding("MPI", "FAIL", f"{value}, but {started} processes were started", remedy)
    if not library:
        remedy = "pip install mpich (or load the site's MPI) to use several ranks"
        return Finding("MPI", "warn", value, remedy)
    return Finding("MPI", "ok", value)


def ranks(seats: Sequence[Seat]) -> list[Finding]:
    """What each rank does, and where; equal neighbours of a node share a line."""
    found = []
    for (host, cores, gpus, does), group in groupby(seats, key=lambda s: (s.host, len(s.cores), len(s.gpus), s.does)):
        members = [seat.rank for seat in group]
        name = f"rank {members[0]}" if len(members) == 1 else f"ranks {spans(members)}"
        found.append(Finding(name, "ok", f"{host}, {cores} core(s), {gpus} GPU(s) seen: {does}"))
    return found


def sharing(seats: Sequence[Seat]) -> Finding:
    """Whether the ranks of a host know that they share its memory: scorers serve only those."""
    apart = sorted({s.host for s in seats if set(s.shares) != {o.rank for o in seats if o.host == s.host}})
    if not apart:
        sizes = sorted({len(seat.shares) for seat in seats})
        return Finding("node sharing", "ok", f"{' or '.join(map(str, sizes))} rank(s) a node share memory")
    return Finding(
        "node sharing",
        "warn",
        f"ranks of {', '.join(apart)} do not see that they are on one node, or two nodes have one name",
        "unset MPIR_CVAR_NOLOCAL, start ranks in one container's namespaces; without it no rank reads for a scorer",
    )


def processors(seats: Sequence[Seat], threads: int) -> Finding:
    """Whether the threads of a host's ranks have a core each."""
    hosts = sorted({seat.host for seat in seats})
    wanted = {host: threads * sum(seat.host == host for seat in seats) for host in hosts}
    offered = {host: len({core for seat in seats if seat.host == host for core in seat.cores}) for host in hosts}
    crowded = [f"{wanted[host]} on {offered[host]} core(s) of {host}" for host in hosts if wanted[host] > offered[host]]
    if crowded:
        remedy = "start fewer ranks, lower compute.threads, or ask for more (--cpus-per-task, also of srun itself)"
        return Finding("cores", "warn", f"threads: {'; '.join(crowded)}", remedy)
    return Finding("cores", "ok", f"{min(offered.values())} or more cores a node for {max(wanted.values())} threads")


def devices(seats: Sequence[Seat], device: str) -> Finding:
    """Whether every node has the GPUs that are asked for, and all are used."""
    hosts = sorted({seat.host for seat in seats})
    offered = {host: len({gpu for seat in seats if seat.host == host for gpu in seat.gpus}) for host in hosts}
    scoring = {
        h: len({s.does for s in seats if s.host == h and "scores" in s.does and "cuda" in s.does}) for h in hosts
    }
    told = ", ".join(f"{offered[host]} on {host}" for host in hosts)
    if device.startswith("cuda") and not all(offered.values()):
        remedy = "ask for GPUs (--gres=gpu:N; docker --gpus all, apptainer --nv), or set compute.device = 'cpu'"
        return Finding("GPUs", "FAIL", f"{told}, but compute.device = {device!r}", remedy)
    if device == "cuda" and any(scoring[host] < offered[host] for host in hosts):
        return Finding(
            "GPUs", "warn", f"{told}; some score nothing", "start two ranks or more a GPU: one scores, one reads"
        )
    return Finding("GPUs", "ok", told if any(offered.values()) else "none, and none asked for")


def memory(limit_bytes: float, source: str, n_ranks: int) -> Finding:
    """``limit_bytes`` is what all ranks of a node may take together."""
    value = f"{amount(limit_bytes)} ({source}) for {n_ranks} rank(s)"
    if limit_bytes < n_ranks * RANK_BYTES:
        return Finding("memory", "warn", value, f"a rank takes up to {amount(RANK_BYTES)}: more memory, or fewer ranks")
    return Finding("memory", "ok", value)


def shared_memory(free_bytes: float | None, left_behind: int, n_ranks: int) -> Finding:
    """``free_bytes`` of /dev/shm, None if it cannot be written to; ``left_behind``: segments of dead MPI programs."""
    if free_bytes is None:
        state: State = "FAIL" if n_ranks > 1 else "warn"
        return Finding(
            "/dev/shm", state, "cannot be written to: MPI needs it", "mount a tmpfs there (docker --shm-size=1g)"
        )
    value = f"{amount(free_bytes)} free"
    if left_behind:
        remedy = (
            "delete them: rm /dev/shm/mpich_shm_* (MPI_Init would fail with 'Out of memory' if it met its own name)"
        )
        return Finding("/dev/shm", "warn", f"{value}, {left_behind} segment(s) of dead MPI programs of yours", remedy)
    if free_bytes < n_ranks * SHM_BYTES:
        return Finding("/dev/shm", "warn", f"{value} for {n_ranks} rank(s)", "docker --shm-size=1g, or fewer ranks")
    return Finding("/dev/shm", "ok", value)


def open_files(soft: int, hard: int) -> Finding:
    value = f"{soft} (at most {hard})"
    if soft < OPEN_FILES:
        return Finding("open files", "warn", value, f"ulimit -n {min(max(hard, soft), 4096)}, before the ranks start")
    return Finding("open files", "ok", value)


def scratch(folder: str, free_bytes: float, need_bytes: float) -> Finding:
    """``need_bytes``: of a node's ranks that read for others, none where each scores for itself."""
    value = f"{folder}: {amount(free_bytes)} free, {amount(need_bytes)} needed"
    if free_bytes < need_bytes:
        remedy = "set compute.scratch (or $ORCOLAT_SCRATCH) to a larger node-local folder, or take fewer ranks a node"
        return Finding("scratch", "FAIL", value, remedy)
    return Finding("scratch", "ok", value)


def clock(skews_s: Sequence[tuple[str, float]], folder: str) -> Finding:
    """How far the clock of the file system is ahead of each host's."""
    host, worst_s = max(skews_s, key=lambda pair: abs(pair[1]), default=("", 0.0))
    value = f"that of {folder} is {abs(worst_s):.3f} s {'ahead of' if worst_s >= 0 else 'behind'} the one of {host}"
    if abs(worst_s) <= CLOCK_S:
        return Finding("clock", "ok", value)
    state: State = "FAIL" if abs(worst_s) > MUNGE_S else "warn"
    return Finding("clock", state, value, "synchronise the clocks (chrony, NTP): tell the operators")


def room(kind: str, free_bytes: float, free_files: int | None) -> Finding:
    """``free_files`` None: this kind of file system does not count them."""
    value = (
        f"{kind}, {amount(free_bytes)} free, {'any number of' if free_files is None else f'{free_files:,}'} files more"
    )
    short = free_bytes < RUN_BYTES or (free_files is not None and free_files < RUN_FILES)
    remedy = "make room, or take another --run-dir; `orcolat plan` estimates what a run needs"
    return Finding("run: space", "warn" if short else "ok", value, remedy if short else "")


def fsync(seconds: float) -> Finding:
    value = f"O_EXCL, rename and fsync work; a file is published in {1000 * seconds:.1f} ms"
    if seconds > FSYNC_S:
        return Finding("run: files", "warn", value, "slow: every shard publishes a file; take another file system")
    return Finding("run: files", "ok", value)


def exclusive(won: Sequence[bool | None]) -> Finding:
    """Of all ranks at once: True if it made the one file, False if it was there, None if it does not see the folder."""
    blind = [rank for rank, mine in enumerate(won) if mine is None]
    if blind:
        remedy = "take a --run-dir on a file system that all nodes share, and mount it in every container"
        return Finding("run: shared", "FAIL", f"rank(s) {spans(blind)} do not see the run directory of rank 0", remedy)
    if sum(map(bool, won)) != 1:
        remedy = "O_EXCL is not exclusive there: claims would not hold; take another file system"
        return Finding("run: shared", "FAIL", f"{sum(map(bool, won))} of {len(won)} ranks made the same file", remedy)
    return Finding("run: shared", "ok", f"all {len(won)} rank(s) see it, and of all one alone made a file")


def no_client(missing: Sequence[str]) -> Finding:
    """In a job of Slurm without its commands, as in a container."""
    value = (
        f"a job, but no {' and no '.join(missing)} here: a task that is told to stop cannot put itself back in line, "
        "and what a lost node was at is free only after compute.claim_timeout_s"
    )
    remedy = "bind Slurm's client into the container (containers/README.md), or run `orcolat submit` again"
    return Finding("Slurm", "warn", value, remedy)


def archive(day: str, read: Sequence[str], empty: Sequence[str], bad: Sequence[str]) -> Finding:
    """The first station-days of ``day``: read, without usable data, and "ID: why not" of those that cannot be read."""
    n = len(read) + len(empty) + len(bad)
    value = f"{len(read)} of {n} station-days of {day} read" + (f", {len(empty)} without usable data" if empty else "")
    if not bad:
        return Finding("archive", "ok" if read else "warn", value)
    remedy = "look at these files; are they whole, and may you read them?"
    return Finding("archive", "warn" if read else "FAIL", f"{value}; {bad[0]}", remedy)
