"""What the log of a soak test says, and whether a fault explains each shard that was read more than once."""

from collections import Counter, defaultdict
from itertools import pairwise

SLACK_S = 2.0  # a signal is on its way, a line not written yet


class Log:
    """Lines "TIME PID WHAT SHARD" as they come."""

    def __init__(self, path):
        self._path, self._at = path, 0
        self.lines: list[tuple[float, int, str, str]] = []
        self.readers: set[int] = set()
        self.kept: set[str] = set()
        self.read: dict[str, list[tuple[float, int]]] = defaultdict(list)

    def listen(self):
        """How many lines are new."""
        with self._path.open() as file:
            file.seek(self._at)
            text = file.read()
        text = text[: text.rfind("\n") + 1]
        self._at += len(text)
        for line in text.splitlines():
            when, pid, what, shard = line.split(" ")
            self._add(float(when), int(pid), what, shard)
        return len(text)

    def _add(self, when, pid, what, shard):
        self.lines.append((when, pid, what, shard))
        if what == "read":
            self.readers.add(pid)
            self.read[shard].append((when, pid))
        if what == "kept":
            self.kept.add(shard)

    def count(self, what):
        return sum(line[2] == what for line in self.lines)

    def again(self):
        """How many shards were read twice, three times, ..."""
        return [len(reads) for reads in self.read.values() if len(reads) > 1]


def unexplained(log, faults, ends):
    """Reads of a shard that was read before, with no fault that made it necessary."""
    failed = Counter((pid, shard) for _, pid, what, shard in log.lines if what == "failed")
    spoilt = {fault.shard for fault in faults}
    codes = dict(ends)

    def why(shard, first, second):
        (begun, pid), (again, other) = first, second
        if failed[pid, shard]:
            return "failed" if shard in spoilt else ""
        for fault in faults:
            within = fault.begun_s <= again + SLACK_S and fault.ended_s >= begun - SLACK_S
            if fault.kind in ("kill", "delayed start") and fault.pid == pid and within:
                return fault.kind
            if fault.kind == "stop" and fault.pid in (pid, other) and within:
                return fault.kind
            if fault.kind in ("disk full", "read-only") and within and codes.get(pid) == 3:
                return fault.kind
        return ""

    found = []
    for shard, reads in log.read.items():
        found += [(shard, first, second) for first, second in pairwise(reads) if not why(shard, first, second)]
    return found
