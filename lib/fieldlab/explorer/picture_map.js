// Pictures as points: see PictureMap in widgets.py.
const ROOM = 14; // pixels around the points
const REACH = 18; // pixels from which a point can be met by the mouse

function render({ model, el }) {
  el.classList.add("fieldmarks");
  const title = document.createElement("div");
  title.className = "fieldmarks-title";
  const row = document.createElement("div");
  row.className = "fieldmarks-map";
  const canvas = document.createElement("canvas");
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  const card = document.createElement("div");
  card.className = "fieldmarks-card";
  card.setAttribute("aria-live", "polite");
  row.append(canvas, card);
  el.append(title, row);
  const colour = (name) => getComputedStyle(el).getPropertyValue(`--${name}`).trim();
  let at = -1;
  let asked = 0;

  function place(point) {
    const width = canvas.clientWidth - 2 * ROOM, height = canvas.clientHeight - 2 * ROOM;
    return [ROOM + point[0] * width, ROOM + (1 - point[1]) * height];
  }

  function draw() {
    const ratio = window.devicePixelRatio || 1;
    canvas.width = canvas.clientWidth * ratio;
    canvas.height = canvas.clientHeight * ratio;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const points = model.get("points");
    title.textContent = model.get("label");
    canvas.setAttribute("aria-label", `${model.get("label")} Arrow keys go to the next picture, Enter makes it the query.`);
    pen.fillStyle = colour("neutral");
    pen.globalAlpha = 0.45;
    for (const point of points) disc(pen, ...place(point), 3);
    pen.globalAlpha = 1;
    for (const { position, mark } of model.get("special")) sign(pen, ...place(points[position]), mark);
    if (at >= 0 && at < points.length) {
      pen.strokeStyle = colour("ink");
      pen.lineWidth = 2;
      const [x, y] = place(points[at]);
      pen.beginPath();
      pen.arc(x, y, 10, 0, 2 * Math.PI);
      pen.stroke();
    }
  }

  function disc(pen, x, y, radius) {
    pen.beginPath();
    pen.arc(x, y, radius, 0, 2 * Math.PI);
    pen.fill();
  }

  function sign(pen, x, y, mark) {
    if (mark === "query") {
      pen.fillStyle = colour("accent");
      pen.strokeStyle = colour("ink");
      pen.lineWidth = 1.5;
      pen.fillRect(x - 7, y - 7, 14, 14);
      pen.strokeRect(x - 7, y - 7, 14, 14);
      pen.fillStyle = colour("ink");
    } else {
      pen.fillStyle = colour(mark);
      disc(pen, x, y, 7);
      pen.fillStyle = "white";
    }
    pen.font = "bold 10px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.fillText({ query: "Q", right: "✓", wrong: "✗", neutral: "•" }[mark], x, y + 0.5);
  }

  function look(position) {
    if (position === at) return;
    at = position;
    draw();
    clearTimeout(asked);
    asked = setTimeout(() => { model.set("hovered", at); model.save_changes(); }, 15); // what the mouse only crosses is not asked for
  }

  function choose() {
    if (at < 0) return;
    model.set("chosen", at);
    model.save_changes();
  }

  function nearest(x, y) {
    let best = -1, least = REACH * REACH;
    model.get("points").forEach((point, position) => {
      const [px, py] = place(point);
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least) [best, least] = [position, distance];
    });
    return best;
  }

  // The nearest point in a quarter of the plane around the direction of an arrow.
  function neighbour(dx, dy) {
    const points = model.get("points");
    if (at < 0 || at >= points.length) return points.length ? 0 : -1;
    const [x, y] = place(points[at]);
    let best = at, least = Infinity;
    points.forEach((point, position) => {
      const [px, py] = place(point);
      const along = (px - x) * dx + (py - y) * dy, across = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
      if (position !== at && along > 0 && across <= along && along + across < least) [best, least] = [position, along + across];
    });
    return best;
  }

  canvas.addEventListener("mousemove", (event) => {
    const found = nearest(event.offsetX, event.offsetY);
    if (found >= 0) look(found);
  });
  canvas.addEventListener("click", (event) => {
    const found = nearest(event.offsetX, event.offsetY);
    if (found >= 0) { look(found); choose(); }
  });
  canvas.addEventListener("keydown", (event) => {
    const arrows = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
    if (event.key in arrows) look(neighbour(...arrows[event.key]));
    else if (event.key === "Enter" || event.key === " ") choose();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  function show() {
    const { source, name } = model.get("card");
    card.replaceChildren();
    if (!source) { card.textContent = "Point at a picture"; return; }
    const image = document.createElement("img");
    image.src = source;
    image.alt = name;
    card.append(image, name);
  }

  model.on("change:points", () => { at = -1; draw(); });
  for (const name of ["label", "special"]) model.on(`change:${name}`, draw);
  model.on("change:card", show);
  const watch = new ResizeObserver(draw);
  watch.observe(canvas);
  show();
  return () => { watch.disconnect(); clearTimeout(asked); };
}

export default { render };
