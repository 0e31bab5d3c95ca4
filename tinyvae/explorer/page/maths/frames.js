// ---- an own image, made like the data: inverted, scaled, centred, and its pixels treated alike -----------------------
// An image here is { values, rows, columns } with values in [0, 1], RUN.channels of them a pixel; RUN.frame says how the
// data lie in theirs.

const INK = 0.25; // how far a pixel lies from the ground if it is a part of what is drawn

function likeTheData({ values, rows, columns }) {
  const { ground, whole } = RUN.frame;
  const border = medianOfBorder(brightness(values), rows, columns);
  const inverted = !whole && Math.abs(border - ground) > 0.5;
  const image = { values: values.map((v) => (inverted ? 1 - v : v)), rows, columns };
  return resampled(image, whole ? coveringBox(rows, columns) : boxOfInk(image));
}

// The mean of the channels of each pixel
function brightness(values) {
  const n = RUN.channels;
  return Float64Array.from({ length: values.length / n }, (_, i) => sumOf(n, (k) => values[i * n + k]) / n);
}

function medianOfBorder(values, rows, columns) {
  const border = Array.from(values).filter((_, i) => {
    const r = Math.floor(i / columns), c = i % columns;
    return r === 0 || c === 0 || r === rows - 1 || c === columns - 1;
  });
  return border.sort((a, b) => a - b)[Math.floor(border.length / 2)];
}

// Where pixel (0, 0) of the result lies in the image, and how many of its pixels one pixel of the result covers: what is
// drawn shall fill the part `size` of the rows or columns, whichever is fuller, with its centre of mass at (row, column).
function boxOfInk({ values, rows, columns }) {
  const { ground, size, row, column } = RUN.frame;
  let [top, bottom, left, right, mass, rowMass, columnMass] = [rows, -1, columns, -1, 0, 0, 0];
  brightness(values).forEach((value, i) => {
    const ink = Math.abs(value - ground);
    if (ink <= INK) return;
    const r = Math.floor(i / columns), c = i % columns;
    [top, bottom, left, right] = [Math.min(top, r), Math.max(bottom, r), Math.min(left, c), Math.max(right, c)];
    mass += ink;
    rowMass += ink * (r + 0.5);
    columnMass += ink * (c + 0.5);
  });
  if (bottom < 0) return coveringBox(rows, columns); // nothing is drawn
  const high = (bottom + 1 - top) / RUN.shape[0], wide = (right + 1 - left) / RUN.shape[1];
  const scale = Math.max(high, wide) / size;
  const inside = (start, first, last, count) => Math.max(Math.min(start, first), last + 1 - scale * count); // cut nothing off
  return { scale, top: inside(rowMass / mass - row * scale, top, bottom, RUN.shape[0]),
           left: inside(columnMass / mass - column * scale, left, right, RUN.shape[1]) };
}

// The largest part from the middle of an image that has the shape of the data
function coveringBox(rows, columns) {
  const scale = Math.min(rows / RUN.shape[0], columns / RUN.shape[1]);
  return { scale, top: (rows - scale * RUN.shape[0]) / 2, left: (columns - scale * RUN.shape[1]) / 2 };
}

// Each pixel of the result is the mean of `POINTS` x `POINTS` points of the square that it covers; outside is the ground
const POINTS = 6;
function resampled({ values, rows, columns }, { scale, top, left }) {
  const [, wide] = RUN.shape, n = RUN.channels;
  return Float64Array.from({ length: RUN.pixels }, (_, i) => {
    const pixel = Math.floor(i / n), r = Math.floor(pixel / wide), c = pixel % wide;
    return sumOf(POINTS * POINTS, (k) => {
      const y = Math.floor(top + scale * (r + (Math.floor(k / POINTS) + 0.5) / POINTS));
      const x = Math.floor(left + scale * (c + ((k % POINTS) + 0.5) / POINTS));
      const inside = y >= 0 && y < rows && x >= 0 && x < columns;
      return inside ? values[(y * columns + x) * n + (i % n)] : RUN.frame.ground;
    }) / POINTS ** 2;
  });
}

// What the model reads of grey values: themselves, or bits by the treatment of its data. A drawn bit is 1 with the
// probability of its grey value; each pixel keeps its uniform number, so that a stroke changes no other pixel.
const levels = [];
function treated(grey) {
  if (RUN.treatment === "gray") return grey;
  return Float64Array.from(grey, (value, i) => {
    levels[i] ??= uniform();
    return value > (RUN.treatment === "threshold" ? 0.5 : levels[i]) ? 1 : 0;
  });
}
