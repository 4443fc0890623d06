"""Train the mini model: codec, data, scorer, transformer, export.

python scripts/train_mini configs/train/mini.yaml
"""

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from vidcfg import cli

STAGES = ("codec", "data", "scorer", "transformer", "export")

DETAILS = """\
Every stage resumes from what lies in the run folder. Ctrl-C keeps the state after the step that
runs; a second one does not wait for it.
"""


def parser() -> argparse.ArgumentParser:
    made = cli.parser("train_mini", __doc__.splitlines()[0], details=DETAILS)
    made.prog = "train_mini"
    made.add_argument("config", type=Path, help="a YAML file such as configs/train/mini.yaml")
    made.add_argument("--stage", choices=(*STAGES, "all"), default="all")
    cli.add_set(made, "transformer.minutes=5")
    return made


def main(argv: list[str] | None = None) -> int:
    return cli.run(parser(), _train, argv)


def _train(arguments: argparse.Namespace) -> int:
    from train_mini.config import load_config

    config = load_config(arguments.config, arguments.set)
    from train_mini.loop import Log, Stop

    stages = STAGES if arguments.stage == "all" else (arguments.stage,)
    with Stop(f"stopped; the same command resumes from {config.run_dir}") as stop:
        run_stages(config, stages, Log(config.run_dir / "log.jsonl"), stop)
    return cli.DONE


def run_stages(config: Any, stages: tuple[str, ...], log: Any, stop: Any) -> None:
    """Run stages in order; each resumes from what lies in the run folder."""
    import torch
    from train_mini.codec import train_codec
    from train_mini.export import export
    from train_mini.scorer import train_scorer

    if config.threads:
        torch.set_num_threads(config.threads)
    torch.set_float32_matmul_precision("high")
    if config.start:
        stages = tuple(stage for stage in stages if stage not in ("codec", "scorer"))
        for part in ("vae", "scorer"):
            shutil.copytree(config.start / part, config.run_dir / part, dirs_exist_ok=True)
    for stage in stages:
        match stage:
            case "codec":
                train_codec(config, config.run_dir / "vae", log, stop=stop)
            case "data":
                _data(config, log)
            case "scorer":
                train_scorer(config, log, stop=stop)
            case "transformer":
                _transformer(config, log, stop)
            case "export":
                export(config, log)


def _data(config: Any, log: Any) -> tuple[Any, Any]:
    """Draw and encode the data set, once; returns codec and tokenizer."""
    from train_mini.data import build

    from vidcfg.mini.codec import CausalVAE
    from vidcfg.mini.text import build_tokenizer, tokenize

    tokenizer = build_tokenizer()
    vae = CausalVAE.from_pretrained(config.run_dir / "vae").float().to(config.device)
    build(
        config.run_dir / "data", config.data, vae, lambda p: tokenize(tokenizer, p), log=log.note
    )
    return vae, tokenizer


def _transformer(config: Any, log: Any, stop: Any) -> None:
    """Train on the data set; sample sheets go to `run_dir/samples`."""
    from train_mini.data import LatentBatches
    from train_mini.export import write_sheet
    from train_mini.transformer import Denoiser, TransformerTraining, train

    from vidcfg.mini.text import tokenize

    # the data
    vae, tokenizer = _data(config, log)
    batches = LatentBatches(
        config.run_dir / "data",
        batch_size=config.transformer.batch_size,
        seed=config.data.seed,
        device=config.device,
    )
    # the model
    sizes = {"channels": vae.config.latent_channels, "vocab_size": tokenizer.get_vocab_size()}
    empty = tokenize(tokenizer, [""])[0][0]
    run = TransformerTraining(config, **sizes, empty=empty)

    def draw_samples(run: Any) -> None:
        model = Denoiser(config.transformer, **sizes)
        model.load_state_dict(run.average)
        path = config.run_dir / "samples" / f"step_{run.clock.step:06d}.png"
        write_sheet(path, model.to(config.device).eval(), vae, tokenizer, config)
        log.note(f"transformer: samples in {path}")

    train(run, batches, config.run_dir / "transformer", log, stop=stop, draw_samples=draw_samples)


if __name__ == "__main__":
    # The modules beside this file are train_mini.config and so on, also in worker processes.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    sys.exit(main())
