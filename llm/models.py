"""Networks and tokenizers from paths, hub names, or the keys of an architecture."""

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

# What transformers raises where files are missing or do not fit, or need a package,
LOADING_ERRORS = (OSError, ValueError, ImportError, RuntimeError)
# and where they are no weights; to unpickle them all the same, as torch proposes, would run code.
DAMAGED = (SafetensorError, UnpicklingError, EOFError, IndexError)
LOOK_AHEAD = 8  # tokens by which it is seen


def load_model(name: str, dtype: str, key: str) -> PreTrainedModel:
    """A causal language model from a path or hub name.

    Args:
        dtype: "auto", or a name of torch's.
        key: of the config, for the message.

    Raises:
        UserError: there is none, or it is an adapter or another kind of model, or its weights do
            not fill it or are not finite.
    """
    with _one_line(f"{key}: {name!r} cannot be loaded"):
        _refuse_adapter(name, key)
        if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
            raise UserError(
                f"{key}: {name!r} has no config.json; name a folder that a model's save_pretrained "
                "has written (a tokenizer alone, or GGUF, will not do)."
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
def _one_line(text: str) -> Iterator[None]:
    """Say `text` and why where loading fails: the first line of what transformers says."""
    try:
        yield
    except UserError:
        raise
    except DAMAGED as error:
        raise UserError(
            f"{text}: a file of its weights is damaged or not whole, or a Git LFS pointer in place "
            "of it."
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
            "it into its base model (PeftModel.merge_and_unload), and save and name that."
        )


def _refuse_other_kinds(config: PreTrainedConfig, key: str) -> None:
    if config.is_encoder_decoder or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        kind = "an encoder-decoder" if config.is_encoder_decoder else "no language model"
        raise UserError(
            f"{key}: {config.model_type} is {kind}; name a causal language model, as GPT-2 or "
            "Llama."
        )


@torch.no_grad()
def refuse_to_look_ahead(model: nn.Module, tokens: Tensor, key: str) -> None:
    """Refuse a network that sees the words that it is to predict, as BERT and its kin do.

    Args:
        model: on the device of `tokens`; it is in eval mode afterwards.
        tokens: (L,) of a text, L at least 2.
        key: of the config, for the message.

    Raises:
        UserError: another last token changes the logits of those before it.
    """
    pair = tokens[:LOOK_AHEAD].repeat(2, 1)
    pair[1, -1] = (pair[1, -1] - 1).abs()  # another one
    one, other = model.eval()(input_ids=pair, attention_mask=torch.ones_like(pair)).logits[:, :-1]
    # Of a causal model they are equal, but for how its experts share out the tokens of a batch.
    is_rounded = one.dtype in HALVES.values() or torch.is_autocast_enabled(tokens.device.type)
    if (one - other).abs().max() > (1e-2 if is_rounded else 1e-4) * one.abs().max():
        raise UserError(
            f"{key}: what the model says of a word changes with the words after it, as that of "
            "BERT and its kin: name a causal language model, as GPT-2 or Llama."
        )


def num_positions(model: PreTrainedModel) -> int | None:
    """The longest text in tokens that a model takes; None where its architecture does not say."""
    return getattr(model.config, "max_position_embeddings", None)


def load_tokenizer(name: str, key: str) -> PreTrainedTokenizerBase:
    """A tokenizer from a path or hub name.

    Raises:
        UserError: there is none.
    """
    with _one_line(f"{key}: no tokenizer in {name!r}"):
        _refuse_adapter(name, key)
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)


def build_student(
    node: CfgNode, weights: str, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel:
    """The network that is trained: from weights, or MODEL.ARCHITECTURE with random ones.

    Args:
        node: MODEL of a config.
        weights: a path or hub name, or nothing.

    Raises:
        UserError: none or both are given, or a key of the architecture is unknown or does not fit.
    """
    keys = dict(node.ARCHITECTURE)
    if bool(weights) == bool(keys):
        raise UserError(
            "The model that is trained needs one of MODEL.WEIGHTS, MODEL.CONFIG_FILE and "
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
    """A config of the model type with the tokenizer's words; a key that it lacks is refused."""
    name = str(keys.pop("model_type", ""))
    if name not in transformers.CONFIG_MAPPING:
        raise UserError(f"MODEL.ARCHITECTURE.model_type: {name!r} is no model of transformers.")
    unknown = keys.keys() - AutoConfig.for_model(name).to_dict().keys()
    if unknown:
        raise UserError(f"MODEL.ARCHITECTURE: {name} has no {', '.join(sorted(unknown))}.")
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return AutoConfig.for_model(name, **{"vocab_size": len(tokenizer), **special, **keys})
