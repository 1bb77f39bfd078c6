"""Distillation of language models on Hugging Face Transformers, with the losses of eakd_det.

B counts the sequences of a batch, L their tokens, N the tokens of answers in it, V the words.
"""
