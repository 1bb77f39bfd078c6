"""The paper's analyses of what a teacher knows and a student has learnt, on any pair of checkpoints.

N counts samples (images of a classifier, ROIs of a detector), C classes, D features.
"""
