import numpy as np
import pytest
from PIL import Image, ImageDraw

from vidcfg.media import drawing
from vidcfg.media.drawing import (
    OFF,
    draw_text,
    font,
    strength_colours,
    strength_range,
    strength_text,
    wrap_text,
)
from vidcfg.media.sheet import (
    comparison_sheet,
    contact_sheet,
    evenly_chosen,
    spread_over_pixels,
    surface_picture,
)

BRIGHT = (250, 10, 240)
TEXTS = {"title": "x", "subtitle": "y"}


def _frames(num_frames=5, height=8, width=12):
    """Every frame in one colour of its own, so that it can be found in a picture."""
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    frames[..., 0] = 3 + 2 * np.arange(num_frames)[:, None, None]
    frames[..., 1:] = BRIGHT[1:]
    return frames


def _count(picture, colour):
    return int((np.asarray(picture) == np.array(colour, np.uint8)).all(-1).sum())


def test_every_frame_is_on_the_sheet_enlarged_without_blending():
    sheet = contact_sheet(_frames(), **TEXTS, strengths=np.full(5, 6.0))
    for t in range(5):
        # 12 pixels aimed at 128 are enlarged 11 times, 8 x 11 high.
        assert _count(sheet, (3 + 2 * t, *BRIGHT[1:])) == 12 * 11 * 8 * 11


def test_long_video_is_thinned_evenly_and_keeps_first_and_last():
    chosen = evenly_chosen(81, 17)
    assert chosen == list(range(0, 81, 5))
    assert evenly_chosen(17, 17) == list(range(17))
    sheet = contact_sheet(_frames(33), **TEXTS, strengths=np.full(33, 6.0), max_frames=3)
    shown = [t for t in range(33) if _count(sheet, (3 + 2 * t, *BRIGHT[1:]))]
    assert shown == [0, 16, 32]


def test_bar_of_a_frame_has_the_colour_of_its_strength_and_grows_with_it():
    strengths = np.array([6.0, 4.0, 2.0, 3.0, 1.0])
    sheet = contact_sheet(_frames(), **TEXTS, strengths=strengths)
    low, high = strength_range(strengths)
    colours = strength_colours(strengths, low=low, high=high)
    areas = [_count(sheet, colour) for colour in colours[:4]]
    assert areas[0] > areas[1] > areas[3] > areas[2] >= 3 * 132
    below = np.asarray(sheet)[-60:]
    for t, colour in enumerate(colours):
        columns = np.flatnonzero((below == colour).all(-1).any(0))
        assert (columns.min(), columns.max()) == (16 + 140 * t, 16 + 140 * t + 131)
    assert tuple(colours[4]) == OFF
    assert _count(sheet, OFF) >= 3 * 132


def test_steps_of_a_frame_stand_side_by_side_in_its_bar():
    off, full = np.ones((2, 1)), np.full((2, 1), 5.0)
    sheet = contact_sheet(_frames(1), **TEXTS, strengths=np.concatenate([full, off]))
    pixels = np.asarray(sheet)
    full_colour = strength_colours(np.array(5.0), low=1.0, high=5.0)
    bar_height = max(
        np.flatnonzero((pixels[:, x] == full_colour).all(-1)).size for x in range(16, 80)
    )
    off_columns = np.flatnonzero((pixels == np.array(OFF)).all(-1)[-60:].any(0))
    assert bar_height > 15
    assert off_columns.min() == 16 + 66
    assert off_columns.max() == 16 + 131


def test_rows_of_a_comparison_share_one_strength_scale():
    rows = [
        ("low", _frames(), np.full(5, 2.0)),
        ("high", _frames(), np.full(5, 9.0)),
        ("off", _frames(), np.ones(5)),
    ]
    sheet = comparison_sheet(rows, **TEXTS)
    expected = strength_colours(np.array([2.0, 9.0]), low=1.0, high=9.0)
    assert all(_count(sheet, colour) > 3 * 132 * 5 for colour in expected)
    assert _count(sheet, (3, *BRIGHT[1:])) == 3 * 132 * 88


def test_comparison_of_different_lengths_is_refused():
    rows = [(name, _frames(count), np.ones(count)) for name, count in (("a", 5), ("b", 4))]
    with pytest.raises(ValueError, match="different shapes"):
        comparison_sheet(rows, **TEXTS)
    with pytest.raises(ValueError, match="at least one row"):
        comparison_sheet([], **TEXTS)


def test_strength_of_exactly_one_is_grey_and_said_to_be_off():
    colours = strength_colours(np.array([1.0, 1.0 + 1e-12]), low=1.0, high=2.0)
    assert tuple(colours[0]) == OFF
    assert tuple(colours[1]) != OFF
    assert [strength_text(s) for s in (1.0, 6.0, 5.25, 0.344, 120.0)] == [
        "1 off",
        "6.0",
        "5.25",
        "0.344",
        "120",
    ]


def test_surface_shows_off_cells_grey_and_the_rest_in_colour():
    strength = np.ones((10, 6))
    strength[:5] = 7.0
    each = [range(f, f + 1) for f in range(6)]
    texts = {"title": "a $5_ prompt$ with signs", "subtitle": "of $5"}
    picture = surface_picture(strength, applied_KF=strength, pixels_of=each, **texts)
    top = strength_colours(np.array(7.0), low=1.0, high=7.0)
    coloured, grey = _count(picture, top), _count(picture, OFF)
    assert coloured > 10_000
    # Half of the cells are off; the colour bar and the legend add a little to either.
    assert grey == pytest.approx(coloured, rel=0.1)


def test_long_words_of_a_surface_end_inside_of_the_picture():
    strength, each = np.full((3, 5), 2.0), [range(f, f + 1) for f in range(5)]
    texts = {"title": "wan-keyframes-" * 9, "subtitle": "scale high: cosine 10 to 2 · " * 7}
    picture = surface_picture(strength, applied_KF=strength, pixels_of=each, **texts)
    levels = np.asarray(picture)
    assert (levels[:, [0, 1, -2, -1]] == 255).all()
    assert (levels[[0, -1]] == 255).all()


def test_surface_draws_what_is_applied_over_the_frames_of_each_latent():
    strength = np.broadcast_to(np.linspace(1.5, 4, 5), (3, 5))
    applied = np.array([[1.5, 4.0]] * 3)
    each = [range(f, f + 1) for f in range(5)]
    same = surface_picture(strength, applied_KF=strength, pixels_of=each, **TEXTS)
    given = {"applied_KF": applied, "pixels_of": [range(1), range(1, 5)]}
    spread = surface_picture(strength, **given, **TEXTS)
    full = strength_colours(np.array(4.0), low=1.0, high=4.0)
    # One pixel frame of five asks for 4.0, but the latent over four of them gets it.
    assert _count(spread, full) == pytest.approx(2.5 * _count(same, full), rel=0.1)


def test_values_of_latents_are_spread_over_their_pixels():
    spread = spread_over_pixels(
        np.array([[5.0, 6.0, 7.0]]), [range(0), range(1), range(1, 4)], num_frames=4
    )
    assert spread.tolist() == [[6.0, 7.0, 7.0, 7.0]]
    with pytest.raises(ValueError, match="leave out"):
        spread_over_pixels(np.ones((1, 2)), [range(1), range(1, 3)], num_frames=4)
    with pytest.raises(ValueError, match="2 latent frames, but 1 ranges"):
        spread_over_pixels(np.ones((1, 2)), [range(4)], num_frames=4)


@pytest.mark.parametrize("text", ["a " * 300, "x" * 900, "日本の風景 🎈\n\tnew line", "", "\x00"])
def test_any_prompt_fits_its_lines(text):
    typeface = font(19, bold=True)
    lines = wrap_text(text, 400, typeface, max_lines=2)
    assert 1 <= len(lines) <= 2
    assert all(typeface.getlength(line) <= 400 and line.isprintable() for line in lines)
    (line,) = wrap_text(text, 100, typeface, max_lines=1)
    assert typeface.getlength(line) <= 100
    contact_sheet(_frames(), title=text, subtitle=text, strengths=np.ones(5))


def test_strengths_of_another_length_are_refused():
    with pytest.raises(ValueError, match="do not fit 5 frames"):
        contact_sheet(_frames(), **TEXTS, strengths=np.ones(4))
    with pytest.raises(ValueError, match=r"\[T, H, W, 3\]"):
        contact_sheet(_frames().transpose(0, 3, 1, 2), **TEXTS, strengths=np.ones(5))


@pytest.fixture
def kite_font(tmp_path, monkeypatch):
    """`kite_font()` installs a font that shows a kite, and a wide sign, as solid blocks."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen
    from matplotlib.font_manager import FontEntry, fontManager

    def install():
        pen = TTGlyphPen(None)
        pen.moveTo((0, 0))
        for corner in ((0, 700), (900, 700), (900, 0)):
            pen.lineTo(corner)
        pen.closePath()
        builder = FontBuilder(1000, isTTF=True)
        builder.setupGlyphOrder([".notdef", "block"])
        builder.setupCharacterMap({ord("\u98a8"): "block", ord("\U0001fa81"): "block"})
        builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "block": pen.glyph()})
        builder.setupHorizontalMetrics({".notdef": (500, 0), "block": (1000, 0)})
        builder.setupHorizontalHeader(ascent=800, descent=-200)
        builder.setupNameTable({"familyName": "Kite", "styleName": "Regular"})
        builder.setupOS2()
        builder.setupPost()
        builder.save(tmp_path / "kite.ttf")
        fontManager.ttflist.append(FontEntry(fname=str(tmp_path / "kite.ttf"), name="Kite"))

    monkeypatch.setattr(fontManager, "ttflist", [])
    drawing._path_with.cache_clear()
    yield install
    drawing._path_with.cache_clear()


def test_characters_that_the_own_font_lacks_are_drawn_with_one_of_the_machine(kite_font):
    kite_font()
    typeface = font(20)
    text = "xx \u98a8\U0001fa81 xx"
    assert wrap_text(text, 400, typeface, max_lines=1) == [text]
    sheet = Image.new("RGB", (300, 40), "white")
    draw_text(ImageDraw.Draw(sheet), (10, 5), text, size=20, colour=(0, 0, 0))
    dark = (np.asarray(sheet)[..., 0] < 128).all(axis=0, where=_rows(sheet, 12, 20))
    start = 10 + typeface.getlength("xx ")
    # Two blocks of 18 of 20 pixels, on the line of the letters around them.
    blocks = np.flatnonzero(dark)
    assert abs(blocks.min() - start) <= 1
    assert abs(blocks.max() - (start + 38)) <= 2
    assert 34 <= len(blocks) <= 38
    # What comes behind is where it belongs, and as wide as without a fallback.
    ink = np.flatnonzero((np.asarray(sheet)[..., 0] < 128).any(axis=0))
    assert abs(ink.max() - (start + 40 + typeface.getlength(" xx"))) <= 3


def _rows(picture, first, last):
    inside = np.zeros((picture.height, 1), bool)
    inside[first:last] = True
    return inside


def test_characters_that_no_font_has_are_their_escapes_and_no_boxes(kite_font):
    lines = wrap_text("a \u98a8 of \U0001fa81", 400, font(19, bold=True), max_lines=1)
    assert lines == [r"a \u98a8 of \U0001fa81"]
