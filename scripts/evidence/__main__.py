"""The project's evidence: the field's claims about guidance, measured on the embedded model.

python scripts/evidence run --prompts 32 --only scale
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from vidcfg import cli

DETAILS = """\
prompts   draw the prompts of configs/evidence (512 of trained pairs, 512 and 1,024 others, 512
          of held-out pairs, 16 to be drawn many times)
run       sample and measure what is missing of the sweeps there, then stop
page      write docs/evidence.md and its picture from what is there
unseen    print alignment on the prompts of --only that no clip of the training showed or told

Videos are kept as metrics and features, a file for some prompts of a cell: `run` resumes, more
--prompts add to what is there, and folders of several machines may be put together by copying.
Video i of a sweep is drawn from its first seed + i. On CUDA the model runs there and --workers
processes measure.
"""


def parser() -> argparse.ArgumentParser:
    from evidence.cells import SWEEPS

    made = cli.parser("evidence", __doc__.splitlines()[0], details=DETAILS)
    made.prog = "evidence"
    add = made.add_argument
    add("what", choices=("prompts", "run", "page", "unseen"))
    add("--prompts", type=int, metavar="N", help="the first N prompts of each sweep")
    add("--only", nargs="+", choices=SWEEPS, default=list(SWEEPS), metavar="SWEEP")
    cli.add_set(made, "'set={model.device: cpu}'")
    cli.add_workers(made, "processes that measure; 0: this one")
    add("--batch", type=int, default=64, help="prompts that are sampled together")
    add("--part", default="0/1", metavar="I/N", help="make the I-th of N parts, from 0")
    add("--bfloat16", action="store_true", help="autocast; must be the same in all of --out")
    add("--dry-run", action="store_true", help="print what is missing and stop")
    cli.add_out(made, "where results are kept", default="runs/evidence")
    add("--docs", type=Path, default=Path("docs"), help="where the page is written")
    return made


def main(argv: list[str] | None = None) -> int:
    todo = {"prompts": _prompts, "run": _run, "page": _page, "unseen": _unseen}
    return cli.run(parser(), lambda arguments: todo[arguments.what](arguments), argv)


def _prompts(arguments: argparse.Namespace) -> int:
    from evidence.cells import CONFIGS
    from evidence.make import UNSEEN, draw_prompts

    from vidcfg.files import write_text

    files = {"prompts": (512, False, 0), "held_out": (512, True, 0), "variety": (16, False, 512)}
    files |= {"distance": (512, False, 528), "confirm": (1024, False, 1040)}
    files["minimum"] = (8192, False, UNSEEN + 8192)
    for name, (num, held_out, start) in files.items():
        found = draw_prompts(arguments.prompts or num, held_out=held_out, start=start)
        path = write_text(CONFIGS / f"{name}.txt", "\n".join(found) + "\n")
        cli.say(f"{len(found)} prompts in {path}")
    return cli.DONE


def _works(arguments: argparse.Namespace, numerics: str) -> list[Any]:
    from evidence.cells import load_sweeps

    return load_sweeps(
        arguments.only, arguments.prompts, overrides=arguments.set, numerics=numerics
    )


def _run(arguments: argparse.Namespace) -> int:
    from evidence.make import make, tasks_of

    # What is missing, of it this part
    out = Path(arguments.out)
    works = _works(arguments, "bfloat16" if arguments.bfloat16 else "float32")
    index, num = (int(word) for word in arguments.part.split("/"))
    tasks = tasks_of(works, out, arguments.batch)[index::num]
    videos = sum(stop - start for _, start, stop in tasks)
    cost = sum((stop - start) * _calls(work.config) for work, start, stop in tasks)
    cells = len({work.digest for work in works})
    cli.say(
        f"{len(works)} cells, {cells} of them different; to make: {len(tasks)} batches, {videos} "
        f"videos, {cost} model evaluations at most"
    )
    if arguments.dry_run:
        return cli.DONE

    # How, for the page and for those who go on
    from vidcfg.files import write_json
    from vidcfg.render.record import versions

    out.mkdir(parents=True, exist_ok=True)
    path, how = out / "settings.json", {"bfloat16": arguments.bfloat16}
    if path.exists() and json.loads(path.read_text())["bfloat16"] != arguments.bfloat16:
        raise ValueError(f"{path} says another --bfloat16. Choose another --out.")
    write_json(path, how | {"device": _device(works), "versions": versions()})
    make(tasks, out, workers=arguments.workers, bfloat16=arguments.bfloat16, say=cli.say)
    return cli.DONE


def _calls(config: Any) -> int:
    """Model evaluations of a video at most: two passes a step, one with guidance off."""
    passes = 1 if config.guidance.is_off else 2
    return passes * sum(config.sampling.usual_calls)


def _device(works: list[Any]) -> str:
    import torch

    from vidcfg.pipelines.load import pick_device

    device = pick_device(works[0].config.model.device)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def _there(arguments: argparse.Namespace) -> tuple[Path, dict[str, Any], list[Any]]:
    """The folder of the results, how they were made, and the cells that are there: those of each
    sweep on --prompts, or on the first prompts that all its cells have; a sweep without any is
    left out."""
    from evidence.cells import load_sweeps, missing

    out, works = Path(arguments.out), []
    path = out / "settings.json"
    if not path.is_file():
        raise ValueError(f"{out} holds no results. Type: python scripts/evidence run --out {out}")
    how = json.loads(path.read_text())
    numerics = "bfloat16" if how["bfloat16"] else "float32"
    for name in arguments.only:
        num = arguments.prompts
        if num is None:
            whole = load_sweeps([name], overrides=arguments.set, numerics=numerics)
            first = (min(missing(out, work), default=len(work.prompts)) for work in whole)
            num = min(first) // whole[0].seeds
        if num == 0:
            cli.say(f"{name}: no prompt has all its cells; not on the page")
            continue
        works += load_sweeps([name], num, overrides=arguments.set, numerics=numerics)
    return out, how, works


def _unseen(arguments: argparse.Namespace) -> int:
    from evidence.unseen import training_data, training_texts, unseen_rows

    out, _, works = _there(arguments)
    texts = {text for data in training_data() for text in training_texts(data)}
    head = ["sweep", "setting", "prompts", "alignment"]
    for row in (head, ["---"] * len(head), *unseen_rows(works, out, texts)):
        cli.say(f"| {' | '.join(row)} |")
    return cli.DONE


def _page(arguments: argparse.Namespace) -> int:
    from evidence.cells import CONFIGS, read
    from evidence.drawn import EMBED, features_of_prompt, real_features
    from evidence.page import write_page
    from evidence.picture import draw
    from evidence.sets import SetValues, by_prompt, even
    from evidence.verdicts import judge

    from vidcfg.settings.document import load_document

    # What is there
    out, how, works = _there(arguments)
    real = real_features(out)
    factor = even(real, (EMBED, real.shape[1] - EMBED))
    asked = dict.fromkeys(text for work in works if work.seeds > 1 for text in work.prompts)
    honest = {text: features_of_prompt(out, text) * factor for text in asked}
    sweeps: dict[str, dict[str, Any]] = {work.sweep: {} for work in works}
    for work in works:
        made = read(out, work)
        made = replace(made, features=made.features * factor)
        made = by_prompt(made, work.prompts, honest) if work.seeds > 1 else made
        sweeps[work.sweep][work.id] = made

    # What it says
    document = load_document(CONFIGS / "claims.yaml")
    claims = [claim for claim in document.data["claims"] if claim["sweep"] in sweeps]
    sets = SetValues(real * factor, first_of_look=EMBED)
    verdicts = judge(claims, sweeps, sets)
    path = write_page(arguments.docs / "evidence.md", works, sweeps, verdicts, sets, how)
    picture = arguments.docs / "pictures" / "evidence.png"
    draw(picture, works, sweeps, sets)
    cli.say(f"wrote {path} and {picture}")
    return cli.DONE


if __name__ == "__main__":
    # The modules beside this file are evidence.make and so on, also in processes that measure.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    sys.exit(main())
