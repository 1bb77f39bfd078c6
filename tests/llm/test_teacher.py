import torch
from transformers import AutoModelForCausalLM

from llm.teacher import LanguageTeacher


def test_outputs_are_the_models_without_gradients(teacher_path):
    teacher = LanguageTeacher(AutoModelForCausalLM.from_pretrained(teacher_path).train())
    assert teacher.is_prepared and not teacher.model.training
    inputs = {"input_ids": torch.tensor([[1, 2, 3]]), "attention_mask": torch.ones(1, 3).long()}
    output = teacher.outputs(inputs)
    assert output.logits.equal(teacher.model(**inputs).logits)
    states = teacher.model.transformer(**inputs).last_hidden_state
    torch.testing.assert_close(teacher.head(states), output.logits)
    assert output.past_key_values is None and teacher.model(**inputs).past_key_values is not None
    assert not output.logits.requires_grad and not any(
        p.requires_grad for p in teacher.model.parameters()
    )
    with torch.autocast("cpu", torch.bfloat16):
        assert teacher.outputs(inputs).logits.dtype == torch.bfloat16
