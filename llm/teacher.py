"""A language model's frozen teacher."""

from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import ModelOutput

from eakd_det.modeling.teacher import FrozenTeacher


class LanguageTeacher(FrozenTeacher):
    """FrozenTeacher that is a causal language model of Transformers."""

    @property
    def head(self) -> nn.Module:
        """The layer from hidden states to logits of the vocabulary."""
        return self.model.get_output_embeddings()

    @torch.no_grad()
    def outputs(self, inputs: dict[str, Any]) -> ModelOutput:
        """Return the model's outputs for a batch without labels, and no cache for generation."""
        with self.context():
            return self.model(**inputs, use_cache=False)
