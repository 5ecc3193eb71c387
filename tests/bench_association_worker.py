"""One associator on one case, in a process of its own on one core: `tests.bench_association` starts it.

Writes what it measured to a file as JSON. Whoever runs longer than the limit is ended by the system's alarm clock,
which also stops code that does not listen to Python.
"""

import hashlib
import json
import logging
import os
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np

from pipeline.models import associator
from tests.association_cases import CASES, synthetic
from tests.association_scores import event_of_pick, places
from tests.synthetic_picks import Scenario


def main(case_name: str, name: str, repeats: int, limit_s: float, ridgecrest: str, out: Path) -> None:
    logging.disable(logging.WARNING)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    case = CASES[case_name](Path(ridgecrest))
    ready_s = _warmed_up(name)
    walls, cpus, digests = [], [], []
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for _ in range(repeats):
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        wall, cpu = time.perf_counter(), time.process_time()
        found = associator.associate(case.observed, case.by(name))
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
        signal.setitimer(signal.ITIMER_REAL, 0)
        digests.append(_digest(found))
    row = {
        "picks": len(case.observed),
        "wall_s": float(np.median(walls)),
        "cpu_s": float(np.median(cpus)),
        "walls_s": walls,
        "cpus_s": cpus,
        "ready_s": ready_s,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "digests": digests,
        "scores": case.score(found),
        "found": {k: v.tolist() for k, v in vars(places(found)).items()},
        "event_of_pick": event_of_pick(found, len(case.observed)).tolist(),
        "centre": case.centre,
        "limit": case.limit,
    }
    out.write_text(json.dumps(row))


def _warmed_up(name: str) -> float:
    """Seconds to load the associator and, if it is compiled as it goes, to compile it: a small case of its own."""
    begin = time.perf_counter()
    small = synthetic(Scenario(n_events=20))
    associator.associate(small.observed, small.by(name))
    return time.perf_counter() - begin


def _digest(found: list) -> str:
    """Of everything that was found, to the last bit."""
    whole = hashlib.sha256()
    for e in found:
        whole.update(np.array([e.time_ns, *e.picks], np.int64).tobytes())
        whole.update(np.array([e.x_km, e.y_km, e.z_km, e.score, *e.probability, *e.residual_s]).tobytes())
    return whole.hexdigest()


if __name__ == "__main__":
    case_name, name, repeats, limit_s, ridgecrest, out = sys.argv[1:]
    main(case_name, name, int(repeats), float(limit_s), ridgecrest, Path(out))
