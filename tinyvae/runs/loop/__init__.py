"""The epochs of a training in a run folder, in one process or in several."""
