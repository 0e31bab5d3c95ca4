// ---- an own drawing, or an own image file ----------------------------------------------------------------------------

const CANVAS = 224; // pixels of the drawing's longer side
const PEN = 0.075; // the width of the pen, as a part of it

// The values of a canvas: red, green and blue, or the brightness
function imageOf(canvas) {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const n = RUN.channels;
  const value = (i) => (n === 3 ? data[4 * Math.floor(i / 3) + (i % 3)]
    : 0.299 * data[4 * i] + 0.587 * data[4 * i + 1] + 0.114 * data[4 * i + 2]);
  const values = Float64Array.from({ length: canvas.width * canvas.height * n }, (_, i) => value(i) / 255);
  return { values, rows: canvas.height, columns: canvas.width };
}

function takeOwn(image) {
  const grey = likeTheData(image);
  choose({ index: null, label: null, y: null, grey, x: treated(grey) });
}

function startOwn() {
  const canvas = byId("drawing"), [rows, columns] = RUN.shape;
  canvas.width = Math.round((CANVAS * columns) / Math.max(rows, columns));
  canvas.height = Math.round((CANVAS * rows) / Math.max(rows, columns));
  canvas.style.aspectRatio = `${columns} / ${rows}`;
  const paper = new OffscreenCanvas(canvas.width, canvas.height); // without the cursor, which is drawn on the canvas alone
  const context = paper.getContext("2d", { willReadFrequently: true });
  const grey = (value) => `rgb(${[0, 1, 2].map(() => Math.round(255 * value)).join(" ")})`;
  const ground = RUN.frame.ground, ink = ground > 0.5 ? 0 : 1;
  const clear = () => {
    context.fillStyle = grey(ground);
    context.fillRect(0, 0, paper.width, paper.height);
  };
  const copy = (u = null, v = null) => {
    const shown = canvas.getContext("2d");
    shown.drawImage(paper, 0, 0);
    if (u === null) return;
    shown.strokeStyle = colour("--hidden");
    shown.lineWidth = 3;
    shown.strokeRect(u * canvas.width - 8, v * canvas.height - 8, 16, 16);
  };
  const stroke = (u, v, from) => {
    const [x, y] = [u * paper.width, v * paper.height];
    const [x0, y0] = from ? [from[0] * paper.width, from[1] * paper.height] : [x, y + 0.01];
    context.strokeStyle = grey(ink);
    context.lineWidth = PEN * CANVAS;
    context.lineCap = "round";
    context.beginPath();
    context.moveTo(x0, y0);
    context.lineTo(x, y);
    context.stroke();
    copy();
  };
  const take = () => takeOwn(imageOf(paper));
  brush(canvas, () => [1 / 24, 1 / 24], stroke, (u, v, down) => {
    copy(u, v);
    byId("pen").textContent = u === null ? "" : `Pen ${down ? "down" : "lifted"}, ${Math.round(100 * u)} % across, `
      + `${Math.round(100 * v)} % down.`;
  }, take);
  clear();
  copy();
  byId("clear").addEventListener("click", () => { clear(); copy(); });
  byId("file").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    if (!file) return;
    try {
      takeOwn(imageOf(await read(file)));
      byId("file-about").textContent = `Taken: ${file.name}.`;
    } catch {
      byId("file-about").textContent = `${file.name} is no image that this browser reads; give a PNG file.`;
    }
  });
}

// An image file on a white ground, with at most 400 pixels on its longer side
async function read(file) {
  const image = await createImageBitmap(file);
  const scale = Math.min(1, 400 / Math.max(image.width, image.height));
  const canvas = new OffscreenCanvas(Math.max(1, Math.round(image.width * scale)), Math.max(1, Math.round(image.height * scale)));
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas;
}

part({ start: startOwn });
