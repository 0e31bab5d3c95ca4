// ---- what a conditional model is given (tinyvae/models/conditions.py) ------------------------------------------------
// Each kind is a function of its number, the shape of an image and its number of channels. It gives
//   targets    the numbers of the values that the model answers with
//   of(d)      the condition c of a datum
//   seen(d)    what q(z|t, c) reads
//   picture(d) the condition as an image, NaN where nothing is known; null for a label

const CONDITIONS = {};

function condition(name, make) {
  CONDITIONS[name] = make;
}

// The numbers of the values in a box of an image
function valuesOf([top, bottom, left, right], columns, channels) {
  const found = [];
  for (let r = top; r < bottom; r += 1) {
    for (let i = left * channels; i < right * channels; i += 1) found.push(r * columns * channels + i);
  }
  return found;
}

condition("label", (number, [rows, columns], channels) => ({
  targets: valuesOf([0, rows, 0, columns], columns, channels),
  of: (d) => oneHot(d.y, RUN.config.classes),
  seen: (d) => [d.x, oneHot(d.y, RUN.config.classes)],
  picture: () => null,
}));

// 1: the bottom left quarter is given; 2: the left half; 3: all but the bottom right quarter
condition("quadrants", (number, [rows, columns], channels) => {
  const top = Math.floor(rows / 2), left = Math.floor(columns / 2);
  const upper = [0, top, 0, columns], lowerLeft = [top, rows, 0, left], lowerRight = [top, rows, left, columns];
  const known = [[lowerLeft], [[0, rows, 0, left]], [upper, lowerLeft]][number - 1];
  const rest = [[upper, lowerRight], [[0, rows, left, columns]], [lowerRight]][number - 1];
  const [given, targets] = [known, rest].map((boxes) => boxes.flatMap((box) => valuesOf(box, columns, channels)));
  return {
    targets,
    of: (d) => Float64Array.from(given, (i) => d.x[i]),
    seen: (d) => [d.x],
    picture: (d) => {
      const image = new Float64Array(rows * columns * channels).fill(NaN);
      for (const i of given) image[i] = d.x[i];
      return image;
    },
  };
});

// pooled:N, the mean of each block of N x N pixels, in each channel
condition("pooled", (number, [rows, columns], channels) => {
  const wide = columns / number, high = rows / number;
  const block = (i) => {
    const pixel = Math.floor(i / channels), r = Math.floor(pixel / columns / number);
    return (r * wide + Math.floor((pixel % columns) / number)) * channels + (i % channels);
  };
  const of = (d) => {
    const found = new Float64Array(high * wide * channels);
    d.grey.forEach((value, i) => { found[block(i)] += value / number ** 2; });
    return found;
  };
  return {
    targets: valuesOf([0, rows, 0, columns], columns, channels),
    of,
    seen: (d) => [d.x, of(d)],
    picture: (d) => {
      const c = of(d);
      return Float64Array.from(d.grey, (_, i) => c[block(i)]);
    },
  };
});
