"""Run folders: what a training leaves on the disk, and how it goes on from there."""

from tinyvae.runs.files import CheckpointError
from tinyvae.runs.fitting import Interrupted, fit, prepare, resume, train, way_on
from tinyvae.runs.folder import RunFolder, configuration
from tinyvae.runs.loading import check_data, described, load, opened, parameters_of

__all__ = ["CheckpointError", "Interrupted", "RunFolder", "check_data", "configuration", "described", "fit", "load",
           "opened", "parameters_of", "prepare", "resume", "train", "way_on"]  # fmt: skip
