"""The command ``orcolat``: its exit codes. `commands` has the commands, a file for each kind.

Exit codes: 0 complete, 4 complete and the gate failed, 3 incomplete (run again), 2 bad configuration or input, 1 a bug.
"""

from __future__ import annotations

import argparse
import logging

from pipeline import logs
from pipeline.cluster.world import here, one_fails_all_fail
from pipeline.commands import adapt, catalogue, checks, exchange, picking, setup, whole
from pipeline.commands.common import BAD_INPUT, BUG, INCOMPLETE
from pipeline.errors import Incomplete, OrcolatError, is_storage, storage

log = logging.getLogger("pipeline")

EPILOG = """\
a run, step by step (each step is safe to repeat, does only what is missing, and works under `mpiexec -n N`):
  orcolat weights fetch phasenet/original           once, where there is internet
  orcolat config check configs/ridgecrest.toml      is the configuration right?
  orcolat run configs/ridgecrest.toml --run-dir runs/ridgecrest
which is the same as
  orcolat plan configs/ridgecrest.toml --run-dir runs/ridgecrest
  orcolat pick runs/ridgecrest; orcolat associate runs/ridgecrest; orcolat locate runs/ridgecrest
  orcolat compare runs/ridgecrest; orcolat gate runs/ridgecrest; orcolat report runs/ridgecrest

exit codes: 0 complete, 3 incomplete (run again), 2 bad configuration or input, 1 a bug,
4 complete, and the gate failed (of `gate` and `nightly`)
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code, the same on every rank."""
    args = parser().parse_args(argv)
    world = here()
    logs.setup(world.rank, world.size, args.verbose)
    try:
        with one_fails_all_fail(world, exit_code):
            code: int = args.command(args, world)
            world.leave(code)
            return code
    except OrcolatError as e:
        log.error("%s", e)
        return exit_code(e)
    except OSError as e:
        if not is_storage(e):
            raise
        log.error("%s", storage(e))
        return exit_code(e)


def exit_code(error: BaseException) -> int:
    """What the exit code for ``error`` is."""
    if isinstance(error, Incomplete) or is_storage(error):
        return INCOMPLETE
    return BAD_INPUT if isinstance(error, OrcolatError) else BUG


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="orcolat",
        description="From continuous waveforms to an earthquake catalogue, and how it compares with the analysts' one.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("-v", "--verbose", action="store_true", help="log details")
    verbs = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for kind in (whole, picking, catalogue, exchange, adapt, checks, setup):
        kind.add(verbs)
    return top
