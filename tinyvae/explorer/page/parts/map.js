// ---- the map: posterior means of the test data in a plane of latent space, and the place z in it ---------------------

const LIGHT = ["#332288", "#0b6ea8", "#117733", "#7a6500", "#a8480a", "#882255", "#b0206e", "#4d4d4d", "#00685e", "#b2182b"];
const DARK = ["#b7a8ff", "#6cc5f5", "#7fd08f", "#e3d06a", "#ffb07a", "#ff9ec0", "#e29be6", "#d0d0d0", "#6fd6c9", "#ff9a94"];
const STEPS = 40; // arrow keys from one side of the map to the other

// A plane: z = origin + a across + b up, with directions of length 1. `along(z)` gives (a, b).
let PLANE = null;

function planes() {
  const n = RUN.config.latent;
  const axis = (j) => ({ direction: oneHot(j, n), name: `z${j}, ${number(RUN.kl[j])} nats` });
  const order = byActivity();
  const found = [plane(n > 1 ? `z${order[0]} and z${order[1]}, the most active` : "z0", order.slice(0, 2).map(axis),
                       new Float64Array(n))];
  if (n > 2) {
    const component = (i) => ({ direction: Float64Array.from(RUN.directions.subarray(i * n, (i + 1) * n)),
                                name: `component ${i + 1}, ${number(100 * RUN.explained[i], 0)} % of the variance` });
    found.push(plane("the first two principal components", [component(0), component(1)], RUN.middle));
  }
  return found;
}

// The latents, those with the largest KL first
function byActivity() {
  return Array.from(RUN.kl.keys()).sort((i, j) => RUN.kl[j] - RUN.kl[i]);
}

function plane(name, axes, origin) {
  const along = (z) => axes.map(({ direction }) => sumOf(z.length, (i) => (z[i] - origin[i]) * direction[i]));
  const n = RUN.config.latent;
  const points = Array.from({ length: RUN.count }, (_, i) => along(RUN.means.subarray(i * n, (i + 1) * n)));
  if (axes.length < 2) points.forEach((point, i) => point.push(spreadOf(i)));
  const sides = [0, 1].map((k) => {
    const values = points.map((point) => point[k]);
    const [low, high] = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
    const margin = 0.06 * Math.max(high - low, 1e-3);
    return [low - margin, high + margin];
  });
  return { name, axes, along, points, sides };
}

// With one latent, the other side of the map only spreads the points, by label
function spreadOf(i) {
  return (RUN.labels ? RUN.labels[i] : 0) + ((i * 0.618) % 1) * 0.7;
}

function placeInPlane() {
  const at = PLANE.along(HERE.z);
  return at.length > 1 ? at : [at[0], (PLANE.sides[1][0] + PLANE.sides[1][1]) / 2];
}

// Move z within the plane; what lies outside of the plane stays as it is
function moveInPlane(to) {
  const at = PLANE.along(HERE.z);
  const z = Float64Array.from(HERE.z);
  PLANE.axes.forEach(({ direction }, k) => {
    const [low, high] = PLANE.sides[k];
    const step = Math.min(Math.max(to[k], low), high) - at[k];
    direction.forEach((d, i) => { z[i] += step * d; });
  });
  moveTo(z);
}

// The mark of a class: its name if that is short, else its number
function markOf(label) {
  return label < 0 ? "·" : RUN.names[label].length <= 2 ? RUN.names[label] : String(label);
}

function coloursNow() {
  return matchMedia("(prefers-color-scheme: dark)").matches ? DARK : LIGHT;
}

function colourOf(label) {
  return label < 0 ? colour("--soft") : coloursNow()[label % 10];
}

// ---- what is drawn ---------------------------------------------------------------------------------------------------

function onCanvas(canvas, [a, b]) {
  const [[left, right], [bottom, top]] = PLANE.sides;
  return [((a - left) / (right - left)) * canvas.width, ((top - b) / (top - bottom)) * canvas.height];
}

let BACKGROUND = null; // the map without the cross, drawn once for each size, plane and colour scheme

function drawBackground(canvas) {
  BACKGROUND = new OffscreenCanvas(canvas.width, canvas.height);
  const context = BACKGROUND.getContext("2d");
  const ratio = canvas.width / canvas.clientWidth;
  context.fillStyle = colour("--card");
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.strokeStyle = colour("--grid");
  context.fillStyle = colour("--soft");
  context.lineWidth = ratio;
  context.font = `${11 * ratio}px system-ui, sans-serif`;
  PLANE.sides.slice(0, PLANE.axes.length).forEach(([low, high], k) => {
    const unit = 10 ** Math.floor(Math.log10(high - low));
    const step = (high - low) / unit < 3 ? unit / 2 : unit;
    for (let at = Math.ceil(low / step) * step; at <= high; at += step) {
      const [x, y] = onCanvas(canvas, k ? [0, at] : [at, 0]);
      context.beginPath();
      if (k) { context.moveTo(0, y); context.lineTo(canvas.width, y); }
      else { context.moveTo(x, 0); context.lineTo(x, canvas.height); }
      context.stroke();
      const text = number(at, step < 1 ? 1 : 0);
      if (k) context.fillText(text, 3 * ratio, y - 3 * ratio);
      else context.fillText(text, x + 3 * ratio, canvas.height - 4 * ratio);
    }
  });
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.font = `600 ${(RUN.count > 500 ? 9 : 11) * ratio}px system-ui, sans-serif`;
  PLANE.points.forEach((point, i) => {
    const label = RUN.labels ? RUN.labels[i] : -1;
    context.fillStyle = RUN.labels ? colourOf(label) : colour("--accent");
    if (RUN.labels) context.fillText(markOf(label), ...onCanvas(canvas, point));
    else {
      context.beginPath();
      context.arc(...onCanvas(canvas, point), 2 * ratio, 0, 2 * Math.PI);
      context.fill();
    }
  });
}

function drawMap() {
  const canvas = byId("map");
  const size = Math.round(canvas.clientWidth * devicePixelRatio);
  if (!size || !HERE) return; // the page is not shown yet
  if (canvas.width !== size || canvas.height !== size || !BACKGROUND) {
    canvas.width = canvas.height = size;
    drawBackground(canvas);
  }
  const context = canvas.getContext("2d");
  context.drawImage(BACKGROUND, 0, 0);
  const [x, y] = onCanvas(canvas, placeInPlane());
  const ratio = devicePixelRatio;
  for (const [width, ink] of [[6, "--card"], [2.5, "--ink"]]) {
    context.lineWidth = width * ratio;
    context.strokeStyle = colour(ink);
    context.beginPath();
    context.arc(x, y, 8 * ratio, 0, 2 * Math.PI);
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + 8 * dx * ratio, y + 8 * dy * ratio);
      context.lineTo(x + 15 * dx * ratio, y + 15 * dy * ratio);
    }
    context.stroke();
  }
}

// The test datum whose mean is nearest to z in the plane, in units of its sides
function nearest() {
  const at = placeInPlane();
  const far = (point) => sumOf(PLANE.axes.length, (k) => ((point[k] - at[k]) / (PLANE.sides[k][1] - PLANE.sides[k][0])) ** 2);
  return PLANE.points.reduce((best, point, i) => (far(point) < far(PLANE.points[best]) ? i : best), 0);
}

function tellPlace() {
  const at = placeInPlane();
  const near = testDatum(nearest());
  const names = PLANE.axes.map(({ name }, k) => `${name.split(",")[0]} = ${number(at[k])}`).join(", ");
  const given = HERE.datum.y === null ? "" : `, label ${RUN.names[HERE.datum.y]} given`;
  byId("place").textContent = `At ${names}${given}. Nearest on the map: ${describe(near)}.`;
  show(byId("decoded"), decode(HERE.z, HERE.datum), `Mean of p(x|z) at ${names}${given}`);
}

function startMap() {
  const canvas = byId("map"), select = byId("axes");
  const found = planes();
  found.forEach(({ name }, i) => select.append(make("option", name, { value: i })));
  select.addEventListener("change", () => {
    PLANE = found[select.value];
    BACKGROUND = null;
    nameAxes();
    changed("plane");
  });
  PLANE = found[0];
  nameAxes();
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    const [[left, right], [bottom, top]] = PLANE.sides;
    moveInPlane([left + ((event.clientX - box.left) / box.width) * (right - left),
                 top - ((event.clientY - box.top) / box.height) * (top - bottom)]);
  };
  canvas.addEventListener("pointerdown", (event) => {
    stop();
    canvas.setPointerCapture(event.pointerId);
    place(event);
  });
  canvas.addEventListener("pointermove", (event) => { if (canvas.hasPointerCapture(event.pointerId)) place(event); });
  canvas.addEventListener("dblclick", () => choose(testDatum(nearest())));
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (event.key === "Enter") choose(testDatum(nearest()));
    if (!move) return;
    event.preventDefault();
    stop();
    const at = placeInPlane();
    moveInPlane(at.map((value, k) => value + (move[k] * (PLANE.sides[k][1] - PLANE.sides[k][0])) / STEPS));
  });
  const redraw = () => {
    BACKGROUND = null;
    startLegend();
    drawMap();
    changed("colours");
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  new ResizeObserver(drawMap).observe(canvas);
  byId("plane-about").textContent = `The mean of q(z|x) of ${RUN.count.toLocaleString("en")} test data`
    + `${RUN.labels ? ", each marked by its label" : ""}. Drag over the map, or move by arrow keys: what stands there is decoded `
    + "at once, with all other latents as they are. A double click, or Enter, takes the nearest datum.";
  byId("to-datum").addEventListener("click", () => { stop(); moveTo(posterior(HERE.datum).mean()); });
  byId("to-prior").addEventListener("click", () => { stop(); moveTo(prior(HERE.datum).mean()); });
  startLegend();
}

function nameAxes() {
  const [across, up] = PLANE.axes.map(({ name }) => name);
  byId("map").setAttribute("aria-label", `Map of latent space: ${across} across${up ? `, ${up} up` : ""}`);
  byId("map-axis").textContent = `across: ${across}${up ? `; up: ${up}` : ""}`;
}

function startLegend() {
  const legend = byId("legend");
  legend.hidden = byId("legend-title").hidden = !RUN.labels;
  if (!RUN.labels) return;
  const used = [...new Set(RUN.labels)].sort((a, b) => a - b);
  legend.replaceChildren(...used.map((label) => {
    const item = make("li"), mark = make("b", markOf(label));
    mark.style.color = colourOf(label);
    item.append(mark, label < 0 ? " no label" : markOf(label) === RUN.names[label] ? "" : ` ${RUN.names[label]}`);
    return item;
  }));
}

part({
  start: startMap,
  show: () => {
    drawMap();
    tellPlace();
  },
});
