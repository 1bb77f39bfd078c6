"""Files of a run in OUTPUT_DIR, and its end."""

from pathlib import Path

from detectron2.config import CfgNode

from eakd_det.engine.run_record import NAME
from eakd_det.utils.output_dir import OutputFiles

from .results import TRAIN_RESULT

FILES = OutputFiles(
    results=(
        *(f"checkpoint-{n * '[0-9]'}" for n in range(1, 10)),
        *("model.safetensors", "model-*-of-*.safetensors", "pytorch_model.bin", TRAIN_RESULT),
    ),
    others=(
        *("model.safetensors.index.json", "training_args.bin", "rouge.json"),
        *("result.json", "trainer_state.json"),
        *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
        *("special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
        *("tokenizer.model", "chat_template.jinja"),
        "incomplete-checkpoint-*",
        *("runs/events.out.tfevents.*", "runs/*/events.out.tfevents.*"),
    ),
)


def has_ended(cfg: CfgNode) -> bool:
    """Return True if a run has written its model to OUTPUT_DIR."""
    return (Path(cfg.OUTPUT_DIR) / TRAIN_RESULT).exists()


def ended_since_start(cfg: CfgNode) -> bool:
    """Return True if the run's last start has trained to the end."""
    result, record = (Path(cfg.OUTPUT_DIR, name) for name in (TRAIN_RESULT, NAME))
    return result.exists() and result.stat().st_mtime_ns >= record.stat().st_mtime_ns
