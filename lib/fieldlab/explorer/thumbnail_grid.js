// Pictures as buttons: see ThumbnailGrid in widgets.py.
const SIGNS = { right: "✓", wrong: "✗" };
const WORDS = { right: "right: same class as the query", wrong: "wrong: another class" };

function render({ model, el }) {
  el.classList.add("fieldmarks");
  const title = document.createElement("div");
  title.className = "fieldmarks-title";
  const grid = document.createElement("div");
  grid.setAttribute("role", "group");
  el.append(title, grid);
  let at = 0; // where the keyboard is: only this button is in the order of tabs

  const buttons = () => [...grid.children];

  function draw() {
    const focused = grid.contains(document.activeElement);
    const items = model.get("items");
    const columns = model.get("columns");
    at = Math.max(0, Math.min(at, items.length - 1));
    title.replaceChildren(model.get("label"));
    const note = document.createElement("small");
    note.textContent = model.get("note");
    title.append(note);
    grid.setAttribute("aria-label", `${model.get("label")} ${model.get("note")}`);
    grid.className = "fieldmarks-grid" + (columns >= 8 ? " ten" : "");
    grid.style.gridTemplateColumns = columns ? `repeat(${columns}, minmax(0, 1fr))` : "repeat(auto-fill, minmax(72px, 1fr))";
    grid.replaceChildren(...items.map((item, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = item.mark;
      button.title = item.name;
      button.tabIndex = place === at ? 0 : -1;
      button.setAttribute("aria-label", [item.name, item.caption, WORDS[item.mark]].filter(Boolean).join(", "));
      const image = document.createElement("img");
      image.src = item.source;
      image.alt = ""; // the button is named
      image.draggable = false;
      button.append(image);
      if (SIGNS[item.mark]) {
        const sign = document.createElement("span");
        sign.className = "fieldmarks-sign";
        sign.setAttribute("aria-hidden", "true");
        sign.textContent = SIGNS[item.mark];
        button.append(sign);
      }
      const caption = document.createElement("span");
      caption.className = "fieldmarks-caption";
      caption.textContent = item.caption;
      button.append(caption);
      button.addEventListener("click", () => {
        go(place);
        model.set("chosen", place);
        model.save_changes();
      });
      return button;
    }));
    press();
    if (focused && items.length) buttons()[at].focus();
  }

  function press() {
    buttons().forEach((button, place) => button.setAttribute("aria-pressed", String(place === model.get("chosen"))));
  }

  function go(place) {
    const all = buttons();
    if (place < 0 || place >= all.length) return;
    all[at].tabIndex = -1;
    at = place;
    all[at].tabIndex = 0;
    all[at].focus();
  }

  grid.addEventListener("keydown", (event) => {
    const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
    const target = event.key === "Home" ? 0 : event.key === "End" ? buttons().length - 1 : event.key in steps ? at + steps[event.key] : null;
    if (target === null) return;
    event.preventDefault();
    event.stopPropagation();
    go(target);
  });

  for (const name of ["items", "label", "note", "columns"]) model.on(`change:${name}`, draw);
  model.on("change:chosen", press);
  draw();
}

export default { render };
