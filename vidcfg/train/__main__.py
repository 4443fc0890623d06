"""python -m vidcfg.train config.yaml"""

import argparse
import sys
from pathlib import Path

STAGES = ("codec", "scorer", "transformer", "export")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m vidcfg.train",
        description="Train the mini model: codec, scorer, transformer.",
    )
    parser.add_argument("config", type=Path, help="a YAML file such as configs/train/mini.yaml")
    parser.add_argument("--stage", choices=(*STAGES, "all"), default="all")
    arguments = parser.parse_args(argv)
    from vidcfg.train.config import load_config

    try:
        config = load_config(arguments.config)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    from vidcfg.train.loop import Stop
    from vidcfg.train.stages import run_stages

    stop = Stop()
    stop.listen()
    stages = STAGES if arguments.stage == "all" else (arguments.stage,)
    try:
        run_stages(config, stages, stop=stop)
    except KeyboardInterrupt:
        print(f"stopped; the same command resumes from {config.run_dir}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
