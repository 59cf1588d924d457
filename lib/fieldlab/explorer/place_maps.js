// Where results show what a place of the query shows: see PlaceMaps in widgets.py.
const SIGNS = { right: "✓", wrong: "✗" };

function add(parent, tag, className, text = "") {
  const part = document.createElement(tag);
  part.className = className;
  part.textContent = text;
  parent.append(part);
  return part;
}

function render({ model, el }) {
  el.classList.add("fieldmarks");
  const title = add(el, "div", "fieldmarks-title");
  const row = add(el, "div", "fieldmarks-places");
  const side = add(row, "div", "fieldmarks-pointed");
  const query = add(side, "div", "fieldmarks-layers");
  query.tabIndex = 0;
  query.setAttribute("role", "application");
  const words = add(side, "div", "");
  words.setAttribute("aria-live", "polite");
  const scale = add(side, "div", "fieldmarks-scale");
  const grid = add(row, "div", "fieldmarks-grid");
  grid.setAttribute("role", "group");
  let parts = [], own, frame; // of each result its canvas and caption; of the query its own
  let over = 0, kept = 0; // 1 + the place under the pointer, and the one that stays; 0: none

  function bytes(name) {
    const view = model.get(name);
    return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  }

  function paint(canvas, levels, height, width) {
    const colours = bytes("colours"), image = new ImageData(width, height);
    levels.forEach((level, i) => image.data.set(colours.subarray(4 * level, 4 * level + 4), 4 * i));
    [canvas.height, canvas.width] = [height, width];
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  function layers(place, { source, name }) {
    place.replaceChildren();
    const image = add(place, "img", "");
    image.src = source;
    image.alt = name;
    image.draggable = false;
    return add(place, "canvas", "");
  }

  function build() {
    [over, kept] = [0, 0];
    title.textContent = model.get("label");
    grid.setAttribute("aria-label", model.get("label"));
    query.setAttribute("aria-label", `${model.get("query").name} Arrow keys go from place to place, Enter keeps one.`);
    own = layers(query, model.get("query"));
    frame = add(query, "div", "fieldmarks-frame");
    grid.replaceChildren();
    parts = model.get("items").map((item) => {
      const figure = add(grid, "div", item.mark);
      const canvas = layers(add(figure, "div", "fieldmarks-layers"), item);
      if (SIGNS[item.mark]) add(canvas.parentElement, "span", "fieldmarks-sign", SIGNS[item.mark]);
      return { canvas, caption: add(figure, "span", "fieldmarks-caption") };
    });
    draw();
  }

  function draw() {
    const [h, w, height, width] = model.get("shape"), place = kept || over, size = height * width;
    const carried = model.get("carried"), levels = bytes("levels");
    parts.forEach(({ canvas, caption }, result) => {
      const first = (place * parts.length + result) * size;
      paint(canvas, levels.subarray(first, first + size), height, width);
      caption.textContent = (place ? `${carried[place][result].toFixed(3)} of ` : "") + carried[0][result].toFixed(2);
    });
    paint(own, bytes("own"), h, w);
    own.hidden = place > 0;
    frame.hidden = !place;
    const y = Math.floor((place - 1) / w), x = (place - 1) % w;
    Object.assign(frame.style, { top: `${100 * y / h}%`, left: `${100 * x / w}%`, height: `${100 / h}%`, width: `${100 / w}%` });
    const mean = carried[place].reduce((sum, one) => sum + one, 0) / parts.length;
    const where = `Row ${y + 1}, column ${x + 1} of ${h} × ${w}${kept ? ", kept" : ""}: ${mean.toFixed(3)} of a cosine on average.`;
    words.textContent = place ? where : "All places of the query together. Point at one; a click or Enter keeps it.";
    scale.replaceChildren("0 ");
    paint(add(scale, "canvas", ""), [...Array(256).keys()], 1, 256);
    scale.append(` ${model.get("brightest")[Math.min(place, 1)].toPrecision(2)} of a cosine`);
  }

  function look(place) {
    if (place === (kept || over)) return;
    if (kept) kept = place;
    else over = place;
    draw();
  }

  function keep(place) {
    [kept, over] = place === kept ? [0, place] : [place, 0];
    draw();
  }

  function under(event) {
    const [h, w] = model.get("shape"), box = query.getBoundingClientRect();
    const cell = (at, size, count) => Math.min(count - 1, Math.max(0, Math.floor((count * at) / size)));
    return 1 + w * cell(event.clientY - box.top, box.height, h) + cell(event.clientX - box.left, box.width, w);
  }

  query.addEventListener("pointermove", (event) => { if (!kept) look(under(event)); });
  query.addEventListener("pointerleave", () => { if (!kept) look(0); });
  query.addEventListener("blur", () => { if (!kept) look(0); });
  query.addEventListener("click", (event) => keep(under(event)));
  query.addEventListener("keydown", (event) => {
    const [h, w] = model.get("shape"), place = kept || over, x = (place - 1) % w, y = Math.floor((place - 1) / w);
    const arrows = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
    if (event.key in arrows) {
      const [dx, dy] = arrows[event.key], inside = x + dx >= 0 && x + dx < w && y + dy >= 0 && y + dy < h;
      if (!place) look(1);
      else if (inside) look(place + dx + w * dy);
    } else if (place && (event.key === "Enter" || event.key === " ")) keep(place);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  for (const name of ["label", "levels"]) model.on(`change:${name}`, build);
  build();
}

export default { render };
