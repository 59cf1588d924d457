"""In the kernels of the browser tests: behind its data each figure carries how many pixels the
smallest text in it has, so that a page that shows it can be asked. Picture formats allow that."""


def _mark_figures():  # leaves no name behind: notebooks take those for parameters
    import functools

    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.figure import Figure

    draw_text, savefig, drawn = RendererAgg.draw_text, Figure.savefig, []

    @functools.wraps(draw_text)
    def noted(self, gc, x, y, s, prop, *rest, **options):
        if s.strip():
            drawn.append(prop.get_size_in_points() * self.dpi / 72)
        return draw_text(self, gc, x, y, s, prop, *rest, **options)

    @functools.wraps(savefig)
    def marked(self, stream, *rest, **options):
        drawn.clear()
        savefig(self, stream, *rest, **options)
        if drawn and hasattr(stream, "write"):
            stream.write(b"smallest text %.2f px" % min(drawn))

    RendererAgg.draw_text, Figure.savefig = noted, marked


_mark_figures()
