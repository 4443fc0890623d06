from vidcfg.report.analyse import axis_of, setting_text
from vidcfg.results import CellResult


def cells(*settings):
    return [CellResult(f"c{index}", f"c{index}", each) for index, each in enumerate(settings)]


def test_scale_runs_along_the_axis_even_if_another_number_has_more_values():
    axis = axis_of(
        cells(
            {"guidance.scale": 2, "sampling.num_steps": 8},
            {"guidance.scale": 2, "sampling.num_steps": 12},
            {"guidance.scale": 5.0, "sampling.num_steps": 16},
        )
    )
    assert axis.name == "guidance.scale"
    assert axis.x == {"c0": 2.0, "c1": 2.0, "c2": 5.0}
    assert axis.lines == ("num_steps 8", "num_steps 12", "num_steps 16")


def test_setting_that_never_changes_names_no_line():
    axis = axis_of(cells({"guidance.scale": 1, "a.b": True}, {"guidance.scale": 2, "a.b": True}))
    assert axis.lines == ("",)


def test_cells_without_a_number_are_counted():
    axis = axis_of(cells({"guidance.frames": {"kind": "uniform"}}, {"guidance.frames": "decay"}))
    assert axis.name is None
    assert list(axis.x.values()) == [0.0, 1.0]


def test_section_reads_as_its_kind_and_what_it_sets():
    assert setting_text("guidance.frames", {"kind": "decay", "end": 0.25}) == "decay end 0.25"
    assert setting_text("guidance.rescale", 0.7) == "rescale 0.7"


def test_lines_are_named_by_kind_unless_two_are_alike():
    decay, slow = {"kind": "decay", "end": 0.2}, {"kind": "decay", "end": 0.5}
    ramp = {"kind": "ramp", "first": 0.1}
    first = axis_of(cells(*({"guidance.scale": s, "f": f} for s in (1, 2) for f in (decay, ramp))))
    assert first.lines == ("decay", "ramp")
    both = axis_of(cells(*({"guidance.scale": s, "f": f} for s in (1, 2) for f in (decay, slow))))
    assert both.lines == ("decay end 0.2", "decay end 0.5")
