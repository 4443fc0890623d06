"""The training log: JSON lines in a file, a progress bar on a terminal, plain lines elsewhere."""

import json
import sys
import time
from pathlib import Path


class Log:
    """Appends one JSON object a line to `path`; `note` also prints it."""

    def __init__(self, path: Path, *, every_seconds: float = 30.0):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.every = path, every_seconds
        self._last, self._bar = 0.0, None

    def note(self, text: str, **values) -> None:
        self._append({"note": text, **values})
        print(text + "".join(f"  {k} {_short(v)}" for k, v in values.items()), flush=True)

    def progress(self, stage: str, fraction: float, **values) -> None:
        """One training step: shown on a terminal at once, elsewhere and in the file every so
        often.
        """
        now = time.monotonic()
        if sys.stdout.isatty():
            self._draw(stage, fraction, values)
        if now - self._last >= self.every or fraction >= 1:
            self._last = now
            self._append({"stage": stage, "fraction": round(fraction, 4), **values})
            if not sys.stdout.isatty():
                text = "  ".join(f"{k} {_short(v)}" for k, v in values.items())
                print(f"{stage} {100 * fraction:5.1f} %  {text}", flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _draw(self, stage, fraction, values) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(total=100, bar_format="{desc} {percentage:5.1f}% |{bar}| {postfix}")
        self._bar.set_description_str(stage)
        self._bar.n = min(100, 100 * fraction)
        self._bar.set_postfix_str("  ".join(f"{k} {_short(v)}" for k, v in values.items()))

    def _append(self, row: dict) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"time": round(time.time(), 1), **row}) + "\n")


def _short(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
