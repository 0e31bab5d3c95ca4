"""Run folders: what a training leaves on the disk, and how it goes on from there."""

from tinyvae.runs.files import CheckpointError
from tinyvae.runs.fitting import fit, prepare, resume
from tinyvae.runs.folder import RunFolder, configuration
from tinyvae.runs.loading import check_data, described, load, opened, parameters_of
from tinyvae.runs.loop.epochs import Interrupted, train, way_on
from tinyvae.runs.loop.together import follow, lead

__all__ = ["CheckpointError", "Interrupted", "RunFolder", "check_data", "configuration", "described", "fit", "follow",
           "lead", "load", "opened", "parameters_of", "prepare", "resume", "train", "way_on"]  # fmt: skip
