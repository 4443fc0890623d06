"""The stages of a training run, each skipped or resumed from what lies in the run folder."""

import torch

from vidcfg.mini.codec import CausalVAE
from vidcfg.mini.text import build_tokenizer, tokenize
from vidcfg.train import cache
from vidcfg.train.config import TrainConfig
from vidcfg.train.log import Log
from vidcfg.train.loop import Stop


def run_stages(config: TrainConfig, stages: tuple[str, ...], *, stop: Stop | None = None) -> None:
    """Run stages in order; each resumes from what lies in the run folder."""
    if config.threads:
        torch.set_num_threads(config.threads)
    log = Log(config.run_dir / "log.jsonl")
    try:
        for stage in stages:
            _STAGES[stage](config, log, stop)
    finally:
        log.close()


def _codec(config: TrainConfig, log: Log, stop: Stop | None) -> None:
    from vidcfg.train.codec import train_codec

    train_codec(config, config.run_dir / "vae", log, stop=stop)


def _transformer(config: TrainConfig, log: Log, stop: Stop | None) -> None:
    from vidcfg.train.samples import write_sheet
    from vidcfg.train.transformer import Denoiser, TransformerTraining, train

    tokenizer = build_tokenizer()
    vae = CausalVAE.from_pretrained(config.run_dir / "vae")
    data = config.run_dir / "data"
    cache.build(data, config.data, vae, lambda p: tokenize(tokenizer, p), log=log.note)
    batches = cache.LatentBatches(
        data, batch_size=config.transformer.batch_size, seed=config.data.seed
    )
    run = TransformerTraining(
        config,
        channels=vae.config.latent_channels,
        vocab_size=len(tokenizer),
        empty=tokenize(tokenizer, [""])[0][0],
    )

    def draw_samples(run: TransformerTraining) -> None:
        model = Denoiser(
            config.transformer, channels=vae.config.latent_channels, vocab_size=len(tokenizer)
        )
        model.load_state_dict(run.average)
        path = config.run_dir / "samples" / f"step_{run.clock.step:06d}.png"
        write_sheet(path, model.to(config.device).eval(), vae, tokenizer, config)
        log.note(f"transformer: samples in {path}")

    train(run, batches, config.run_dir / "transformer", log, stop=stop, draw_samples=draw_samples)


def _scorer(config: TrainConfig, log: Log, stop: Stop | None) -> None:
    from vidcfg.train.scorer import train_scorer

    train_scorer(config, log, stop=stop)


def _export(config: TrainConfig, log: Log, stop: Stop | None) -> None:
    from vidcfg.train.export import export

    export(config, log)


_STAGES = {"codec": _codec, "scorer": _scorer, "transformer": _transformer, "export": _export}
