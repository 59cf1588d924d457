"""tour.ipynb in a real browser: it runs whole, and each control draws another picture."""

import json
import re

from helpers.pages import changed, no_traceback, photograph, run_all, sources

RUN = 300_000  # milliseconds: it draws birds and trains three small things
CONTROLS = {
    "family": "select",
    "query": "ArrowRight",
    "attribute": "ArrowRight",
    "compare with": "select",
    "hottest pixels": "ArrowRight",
}


def test_every_control_of_the_tour_draws_another_picture(page, lab, workplace, screenshots):
    notebook = json.loads((workplace / "notebooks" / "tour.ipynb").read_text())
    (parameters,) = [
        cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", [])
    ]
    parameters["source"] = "species = 12\nimages_per_species = 8"
    (workplace / "notebooks" / "small.ipynb").write_text(json.dumps(notebook))
    run_all(page, lab.url("small.ipynb"))
    cells = {
        control: page.locator(
            ".jp-Cell", has=page.locator(".widget-label", has_text=re.compile(f"^{control}"))
        )
        for control in CONTROLS
    }
    cells["hottest pixels"].locator(".jp-OutputArea-output img").first.wait_for(
        timeout=RUN
    )  # until then the kernel has no time for controls
    for number, (control, key) in enumerate(CONTROLS.items(), start=1):
        cell = cells[control]
        before = sources(cell)
        assert before
        if key == "select":
            cell.locator("select").select_option(index=1)
        else:
            cell.locator(".noUi-handle").press(key)
        changed(page, cell, before, f"tour, {control}")
        photograph(page, screenshots, f"tour-{number}", cell)
    answer = page.locator("details", has_text="A few boxes change few bits")
    assert not answer.get_by_text("A few boxes change few bits").is_visible()
    answer.locator("summary").click()
    assert answer.get_by_text("A few boxes change few bits").is_visible()
    no_traceback(page)
