"""Models and tokenizers from paths, hub names, or the keys of an architecture."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

import torch
import transformers
from detectron2.config import CfgNode
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.utils import find_adapter_config_file

from eakd_det.checkpoint.finite import check_finite
from eakd_det.utils.errors import UserError
from eakd_det.utils.precision import HALVES

# Errors of transformers if files are missing or do not fit, or a package is missing,
LOADING_ERRORS = (OSError, ValueError, ImportError, RuntimeError)
# and if files are not weights; unpickling them anyway, as torch suggests, would run code.
DAMAGED = (SafetensorError, UnpicklingError, EOFError, IndexError)
CAUSAL_CHECK_LENGTH = 8  # tokens


def load_model(name: str, dtype: str, key: str) -> PreTrainedModel:
    """Load a causal language model from a path or hub name.

    Args:
        dtype: "auto", or the name of a torch dtype.
        key: config key, for the message.

    Raises:
        UserError: there is no model, it is an adapter or another kind of model, or weights are
            missing or not finite.
    """
    with _loading(f"{key}: {name!r} cannot be loaded"):
        _refuse_adapter(name, key)
        if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
            raise UserError(
                f"{key}: {name!r} has no config.json; name a folder written by a model's "
                "save_pretrained (a tokenizer alone, or GGUF, is not enough)."
            )
        _refuse_other_kinds(AutoConfig.from_pretrained(name, trust_remote_code=False), key)
        model, info = AutoModelForCausalLM.from_pretrained(
            name, dtype=dtype, output_loading_info=True, trust_remote_code=False
        )
    missing = sorted(info["missing_keys"])
    if missing:
        raise UserError(f"{key}: {name!r} lacks weights of its architecture: {missing[:5]}.")
    check_finite(model.named_parameters(), f"{key}: {name!r}")
    return model


@contextmanager
def _loading(text: str) -> Iterator[None]:
    """Raise a UserError of `text` and the first line of transformers' message if loading fails."""
    try:
        yield
    except UserError:
        raise
    except DAMAGED as error:
        raise UserError(
            f"{text}: a file of its weights is damaged or incomplete, or a Git LFS pointer."
        ) from error
    except LOADING_ERRORS as error:
        reason = str(error).strip().partition("\n")[0].strip()
        if reason.endswith(":"):  # a list follows
            reason = " ".join(str(error).split())
        raise UserError(f"{text}: {reason}") from error


def _refuse_adapter(name: str, key: str) -> None:
    if find_adapter_config_file(name) is not None:
        raise UserError(
            f"{key}: {name!r} holds an adapter (LoRA or another of PEFT), not a whole model: merge "
            "it into its base model (PeftModel.merge_and_unload), save that and name it."
        )


def _refuse_other_kinds(config: PreTrainedConfig, key: str) -> None:
    if config.is_encoder_decoder or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        kind = "an encoder-decoder" if config.is_encoder_decoder else "not a language model"
        raise UserError(
            f"{key}: {config.model_type} is {kind}; name a causal language model, such as GPT-2 or "
            "Llama."
        )


@torch.no_grad()
def check_causal(model: nn.Module, tokens: Tensor, key: str) -> None:
    """Refuse a network that attends to future tokens, as BERT does.

    Args:
        model: on the device of `tokens`; it is in eval mode afterwards.
        tokens: (L,), token ids of a text, L at least 2.
        key: config key, for the message.

    Raises:
        UserError: the last token changes the logits at earlier positions.
    """
    pair = tokens[:CAUSAL_CHECK_LENGTH].repeat(2, 1)
    pair[1, -1] = (pair[1, -1] - 1).abs()  # a different token
    one, other = model.eval()(input_ids=pair, attention_mask=torch.ones_like(pair)).logits[:, :-1]
    # A causal model's logits are equal, except for the batch's routing in mixtures of experts.
    is_rounded = one.dtype in HALVES.values() or torch.is_autocast_enabled(tokens.device.type)
    if (one - other).abs().max() > (1e-2 if is_rounded else 1e-4) * one.abs().max():
        raise UserError(
            f"{key}: the model attends to future tokens, as BERT does; name a causal language "
            "model, such as GPT-2 or Llama."
        )


def num_positions(model: PreTrainedModel) -> int | None:
    """Return a model's maximum length in tokens, or None if its config does not define one."""
    return getattr(model.config, "max_position_embeddings", None)


def load_tokenizer(name: str, key: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a path or hub name.

    Raises:
        UserError: there is no tokenizer.
    """
    with _loading(f"{key}: no tokenizer in {name!r}"):
        _refuse_adapter(name, key)
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)


def build_student(
    node: CfgNode, weights: str, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel:
    """Build the model to train: from weights, or from MODEL.ARCHITECTURE with random weights.

    Args:
        node: MODEL of a config.
        weights: a path or hub name, or empty.

    Raises:
        UserError: neither or both are given, or a key of the architecture is unknown or invalid.
    """
    keys = dict(node.ARCHITECTURE)
    if bool(weights) == bool(keys):
        raise UserError(
            "The model to train needs one of MODEL.WEIGHTS, MODEL.CONFIG_FILE and "
            "MODEL.ARCHITECTURE, the last without the others."
        )
    if weights:
        return load_model(weights, node.DTYPE, "MODEL.WEIGHTS")
    config = _architecture(keys, tokenizer)
    _refuse_other_kinds(config, "MODEL.ARCHITECTURE")
    try:
        return AutoModelForCausalLM.from_config(config, dtype=node.DTYPE)
    except ValueError as error:
        raise UserError(f"MODEL.ARCHITECTURE: {error}") from error


def _architecture(
    keys: dict[str, object], tokenizer: PreTrainedTokenizerBase
) -> transformers.PretrainedConfig:
    """Build the config of a model type with the tokenizer's vocabulary; refuse unknown keys."""
    name = str(keys.pop("model_type", ""))
    if name not in transformers.CONFIG_MAPPING:
        raise UserError(f"MODEL.ARCHITECTURE.model_type: transformers has no {name!r}.")
    unknown = keys.keys() - AutoConfig.for_model(name).to_dict().keys()
    if unknown:
        raise UserError(f"MODEL.ARCHITECTURE: {name} has no {', '.join(sorted(unknown))}.")
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return AutoConfig.for_model(name, **{"vocab_size": len(tokenizer), **special, **keys})
