"""The page: complete in itself, text escaped, and alive in a browser."""

import os
import re
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import replace

import pytest

from vidcfg import files
from vidcfg.regress.check import check_clips
from vidcfg.regress.clips import (
    SIDE,
    MeasuredClip,
    as_set,
    make_strip,
    read_baseline,
    read_strip,
    write_baseline,
)
from vidcfg.regress.output import page
from vidcfg.results import Key


@pytest.fixture
def outcome(drawn, change, times, panning, tmp_path):
    """A failed comparison whose clips have pictures, with a prompt that is no friend of HTML."""
    clips = []
    for index, clip in enumerate(drawn.clips.values()):
        strip = tmp_path / f"{index}.webp"
        strip.write_bytes(make_strip(panning(index)).data)
        key = Key("", f"{index} </script><b>bold", 0)
        clips.append(MeasuredClip(key, clip.records, strip=strip))
    base = as_set("base", clips)
    return check_clips(change(base, mc_flicker=times(1.2)), base)


def test_page_needs_no_other_file_and_escapes_prompts(outcome):
    text = page(outcome, commands={"mc_flicker": "python -m vidcfg.render a'b<c.yaml"})
    assert outcome.verdict == "FAIL"
    outside = text.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"""(src|href)=["'](?!data:)|https?://|@import|url\(""", outside)
    assert "<b>bold" not in text
    assert "a&#39;b&lt;c.yaml" in text
    assert text.count("</script>") == 2
    assert text.count("data:image/webp;base64") >= 2


def test_strip_gives_back_small_frames_and_refuses_damaged_files(panning, tmp_path):
    import numpy as np
    from PIL import Image

    frames = panning(3)
    strip = make_strip(frames)
    path = tmp_path / "a.webp"
    path.write_bytes(strip.data)
    assert read_strip(path, 9) == strip
    picture = np.asarray(Image.open(path).convert("RGB"))
    t, columns = 5, strip.columns
    top, left = t // columns * 24, t % columns * 32
    assert (picture[top : top + 24, left : left + 32] == frames[t]).all()
    path.write_bytes(strip.data[:50])
    assert read_strip(path, 9) is None


def test_large_frames_are_reduced():
    import numpy as np

    strip = make_strip(np.zeros((4, 400, 600, 3), np.uint8))
    assert (strip.width, strip.height) == (192, 128)


@pytest.mark.browser
def test_page_loads_without_errors_and_shows_both_sides(outcome, tmp_path):
    path = tmp_path / "index.html"
    path.write_text(page(outcome, commands={}))
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert chromium, "chromium is needed for tests marked browser"
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
    command += ["--no-first-run", "--disable-background-networking", "--disable-sync"]
    command += ["--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--enable-logging=stderr", "--virtual-time-budget=4000", "--dump-dom"]
    done = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr
    assert 'data-ready="yes"' in done.stdout
    assert done.stdout.count("<canvas") == 3 * done.stdout.count('<section class="case"')
    assert 'class="frame bad"' in done.stdout


def test_pictures_outlive_a_baseline_that_is_recorded_from_itself(panning, measured, tmp_path):
    clips = measured({name: panning(seed) for seed, name in enumerate("ab")}, "two")
    made = {
        key: replace(clip, preview=make_strip(panning(seed), side=8))
        for seed, (key, clip) in enumerate(clips.clips.items())
    }
    write_baseline(tmp_path, replace(clips, clips=made), side=SIDE)
    again = read_baseline(tmp_path)
    write_baseline(tmp_path, again, side=SIDE, overwrite=True)
    strips = [clip.strip for clip in read_baseline(tmp_path).clips.values()]
    assert [path.read_bytes() for path in strips] == [clip.preview.data for clip in made.values()]
    write_baseline(tmp_path, again, overwrite=True)
    assert [clip.strip for clip in read_baseline(tmp_path).clips.values()] == [None, None]
    assert list((tmp_path / "videos").iterdir()) == []


@pytest.mark.parametrize("what", ["records.jsonl", "baseline.json", "videos/0001.webp"])
def test_a_baseline_that_cannot_be_renewed_stays_as_it_was(
    panning, measured, tmp_path, monkeypatch, what
):
    def recorded(*seeds):
        clips = measured({name: panning(seed) for seed, name in zip(seeds, "ab")}, "some")
        strips = [make_strip(panning(seed), side=8) for seed in seeds]
        of = zip(clips.clips.items(), strips)
        return replace(clips, clips={key: replace(c, preview=strip) for (key, c), strip in of})

    def content():
        return {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    write_baseline(tmp_path, recorded(0, 1), side=SIDE)
    before = content()
    writing = files.atomic_path

    @contextmanager
    def full(path, *, overwrite=False):
        with writing(path, overwrite=overwrite) as temporary:
            if path == tmp_path / what:
                raise OSError(28, "No space left on device")
            yield temporary

    monkeypatch.setattr(files, "atomic_path", full)
    with pytest.raises(files.FileError, match=f"{what} cannot be written: No space left"):
        write_baseline(tmp_path, recorded(2, 3), side=SIDE, overwrite=True)
    assert content() == before
