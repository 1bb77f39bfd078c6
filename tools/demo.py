#!/usr/bin/env python
"""Distil a ResNet-101 Faster R-CNN into a ResNet-18 one on handwritten digits, in minutes.

No data and no GPU are needed. Ctrl-C stops it; started again, it goes on. It leaves a table,
output/demo/results.json and output/demo/detections.png. A folder of runs that were made otherwise
is left alone, unless --overwrite lets the demo start anew there.
"""

import argparse
import logging
import os
import sys

import eakd_det.utils.before_torch  # noqa: F401

# isort: split

from eakd_det.config.defaults import detection_config
from eakd_det.demo.demo import format_results, run_demo
from eakd_det.utils.command_line import parse_arguments
from eakd_det.utils.errors import UserError

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def setup_logging(output_dir: str) -> None:
    """Send the demo's own lines to the terminal, and all that Detectron2 says to log.txt."""
    os.makedirs(output_dir, exist_ok=True)
    everything = logging.FileHandler(os.path.join(output_dir, "log.txt"))
    everything.setFormatter(logging.Formatter("[%(asctime)s] %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[everything])
    terminal = logging.StreamHandler(sys.stdout)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger("eakd_det").addHandler(terminal)
    logging.getLogger("eakd_det.engine.trainer").setLevel(logging.WARNING)
    logging.getLogger("torch.fx").setLevel(logging.ERROR)  # a warning to authors of tracers


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output-dir", default="output/demo", help="default: %(default)s")
    parser.add_argument("--overwrite", action="store_true", help="start anew")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs for every config")
    args = parse_arguments(parser, detection_config())
    setup_logging(args.output_dir)
    configs = os.path.join(ROOT, "configs", "Digits-Detection")
    try:
        results = run_demo(configs, args.output_dir, args.opts, overwrite=args.overwrite)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nStopped. Start the demo again and it goes on.")
    print(f"\n{format_results(results)}\n")
    print(f"Figures: {args.output_dir}/results.json   Pictures: {args.output_dir}/detections.png")


if __name__ == "__main__":
    main()
