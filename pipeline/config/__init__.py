"""The configuration of a run: TOML in, frozen models, the filled-in TOML and its digest out.

Everything that can change the catalogue is in the digest. The sections ``[compute]`` (device, threads,
tolerated failures), ``[slurm]`` and ``[gate]`` are not: they say how and where the work is done and when it is good
enough, and a run may be resumed with others. A site file holds ``[compute]`` and ``[slurm]`` alone and goes with any
configuration. Paths in a file are relative to that file.
"""

from pipeline.config.catalogue import Associate, Locate, Magnitude
from pipeline.config.files import dumps, load, parse
from pipeline.config.gate import Gate
from pipeline.config.pick import Also, Network, Pick
from pipeline.config.quality import Quality
from pipeline.config.sections import Archive, Compare, Floor, Reference, Report, Run, StationList
from pipeline.config.site import After, Compute, Site, Slurm, is_no_path
from pipeline.config.whole import NOT_IN_DIGEST, Config

__all__ = [
    "NOT_IN_DIGEST",
    "After",
    "Also",
    "Archive",
    "Associate",
    "Compare",
    "Compute",
    "Config",
    "Floor",
    "Gate",
    "Locate",
    "Magnitude",
    "Network",
    "Pick",
    "Quality",
    "Reference",
    "Report",
    "Run",
    "Site",
    "Slurm",
    "StationList",
    "dumps",
    "is_no_path",
    "load",
    "parse",
]
