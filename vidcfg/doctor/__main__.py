"""python -m vidcfg.doctor"""

import argparse
import json
import sys
from dataclasses import asdict

MARKS = {"ok": "  ok  ", "missing": " MISS ", "note": " note "}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m vidcfg.doctor",
        description="Say what works on this machine: versions, devices, attention backends and "
        "weight files; for what is missing, the command that gets it.",
        epilog="exit codes: 0 all that vidcfg needs is there; 1 something is missing",
    )
    made.add_argument("--json", action="store_true", help="print JSON")
    return made


def main(argv: list[str] | None = None) -> int:
    """Run all checks; the result is the exit code."""
    arguments = parser().parse_args(argv)
    from vidcfg.doctor.checks import CHECKS

    found = {}
    for heading, check in CHECKS.items():
        found[heading] = list(check())
        if not arguments.json:
            print(heading)
            for line in found[heading]:
                print(f"{MARKS[line.state]}{line.what:<26}{line.detail}")
            print(flush=True)
    missing = [line.what for lines in found.values() for line in lines if line.state == "missing"]
    if arguments.json:
        print(json.dumps({h: [asdict(line) for line in ls] for h, ls in found.items()}, indent=2))
    else:
        print(f"missing: {', '.join(missing)}" if missing else "all that vidcfg needs is here")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
