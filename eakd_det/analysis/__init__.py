"""The paper's analyses of what teachers know and students have learnt, on any checkpoints.

N counts samples (images of a classifier, ROIs of a detector), C classes, D features.
"""
