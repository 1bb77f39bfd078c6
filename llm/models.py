"""Networks and tokenizers from paths, hub names, or the keys of an architecture."""

import transformers
from detectron2.config import CfgNode
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from eakd_det.errors import UserError


def load_model(name: str, dtype: str, key: str) -> PreTrainedModel:
    """A causal language model from a path or hub name.

    Args:
        dtype: "auto", or a name of torch's.
        key: of the config, for the message.

    Raises:
        UserError: there is none, or its weights do not fill it.
    """
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            name, dtype=dtype, output_loading_info=True
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{key}: {name!r} cannot be loaded: {error}") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise UserError(f"{key}: {name!r} lacks weights of its architecture: {missing[:5]}.")
    return model


def num_positions(model: PreTrainedModel) -> int | None:
    """The longest text in tokens that a model takes; None where its architecture does not say."""
    return getattr(model.config, "max_position_embeddings", None)


def load_tokenizer(name: str, key: str) -> PreTrainedTokenizerBase:
    """A tokenizer from a path or hub name.

    Raises:
        UserError: there is none.
    """
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UserError(f"{key}: no tokenizer in {name!r}: {error}") from error


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
