"""One rank of ``orcolat`` that leaves its largest memory behind: ``python -m tests.bench_rank FOLDER ARGUMENT ...``."""

import os
import sys
from pathlib import Path

from pipeline import cli, meter

if __name__ == "__main__":
    folder, *arguments = sys.argv[1:]
    code = cli.main(arguments)
    Path(folder, str(os.getpid())).write_text(str(meter.peak_gb()))
    sys.exit(code)
