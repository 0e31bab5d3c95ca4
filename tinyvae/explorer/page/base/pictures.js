// ---- drawing images, and small parts of the page ---------------------------------------------------------------------

function byId(id) {
  return document.getElementById(id);
}

function make(tag, text = "", attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// A colour such as #b3400b as three numbers to 255
function rgb(name) {
  return [1, 3, 5].map((at) => parseInt(colour(name).slice(at, at + 2), 16));
}

// An image of values in [0, 1], 0 black and 1 white, or of red, green and blue; NaN, and what `hidden` marks, are hatched in a colour
function show(canvas, values, about, hidden = null) {
  const [rows, columns] = RUN.shape;
  const scale = hidden || values.some(Number.isNaN) ? 6 : 1; // hatches need finer pixels
  canvas.width = columns * scale;
  canvas.height = rows * scale;
  canvas.style.aspectRatio = `${columns} / ${rows}`;
  const image = new ImageData(canvas.width, canvas.height);
  const [hatch, ground] = [rgb("--hidden"), rgb("--grid")];
  for (let i = 0; i < canvas.width * canvas.height; i += 1) {
    const r = Math.floor(i / canvas.width), c = i % canvas.width;
    const first = (Math.floor(r / scale) * columns + Math.floor(c / scale)) * RUN.channels;
    const away = Number.isNaN(values[first]) || (hidden && hidden[first]);
    const ink = [0, 1, 2].map((k) => Math.round(255 * Math.min(Math.max(values[first + k % RUN.channels], 0), 1)));
    image.data.set([...(away ? ((r + c) % 6 < 2 ? hatch : ground) : ink), 255], 4 * i);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  if (about) canvas.setAttribute("aria-label", about);
}

// A button with an image, which calls `act` when it is pressed
function thumb(values, about, act) {
  const button = make("button", "", { type: "button", class: "thumb", "aria-label": about });
  const canvas = make("canvas", "", { class: "image", "aria-hidden": "true" });
  show(canvas, values);
  button.append(canvas);
  button.addEventListener("click", () => act(button));
  return button;
}

function number(value, digits = 2) {
  if (value === null) return "∞"; // JSON has no such number
  return value.toFixed(digits).replace("-", "−");
}

function labelled(label) {
  return label === null ? "no label" : `label ${RUN.names[label]}`;
}

function describe(d) {
  return d.index === null ? "your own image" : `test datum ${d.index}${RUN.labels ? `, ${labelled(d.label)}` : ""}`;
}
