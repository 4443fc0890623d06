"""Result sets read from files, and the page that shows them. No torch, no model."""


def write_report(store, **options):
    """The page of a result set; see `vidcfg.report.write.write_report`."""
    from vidcfg.report.write import write_report as write

    return write(store, **options)
