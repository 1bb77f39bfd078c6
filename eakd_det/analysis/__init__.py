"""The paper's analyses of a teacher's knowledge and its students', on any pair of checkpoints.

N counts samples (images of a classifier, ROIs of a detector), C classes, D features.
"""
