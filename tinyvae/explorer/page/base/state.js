// ---- where the reader is: a datum, a place z, and the label that the decoder is given --------------------------------

let HERE = null; // { datum, z }; datum.y is the label
const SHOWERS = []; // called after every change, with what changed: "datum", "z" or "label"
const STARTERS = [];

// A part of the page: start() once, show(what) after each change
function part({ start = () => {}, show: shows = () => {} }) {
  STARTERS.push(start);
  SHOWERS.push(shows);
}

function changed(what) {
  for (const shows of SHOWERS) shows(what);
}

function choose(datum) {
  stop();
  const d = withLabel(datum);
  HERE = { datum: d, z: posterior(d).mean() };
  changed("datum");
}

// Move to z, kept inside the support of q
function moveTo(z) {
  const { low, high } = FAMILIES[RUN.config.posterior];
  const most = 1e-4;
  HERE.z = Float64Array.from(z, (v) => Math.min(Math.max(v, low + most), high - most));
  changed("z");
}

function giveLabel(y) {
  HERE.datum = { ...HERE.datum, y };
  changed("label");
}

// ---- one animation at a time -----------------------------------------------------------------------------------------

const PLAYER = { button: null, frame: 0 };
const SECONDS = 4; // from one end to the other

// Call step(t) with t going from 0 to 1 and back until the button is pressed again, or another one
function play(button, step, start = 0) {
  const mine = PLAYER.button === button;
  stop();
  if (mine) return;
  PLAYER.button = button;
  button.textContent = "Pause";
  button.setAttribute("aria-pressed", "true");
  const begun = performance.now() - 1000 * SECONDS * start;
  const run = (now) => {
    const t = Math.max(0, now - begun) / 1000 / SECONDS % 2;
    step(t > 1 ? 2 - t : t);
    PLAYER.frame = requestAnimationFrame(run);
  };
  PLAYER.frame = requestAnimationFrame(run);
}

function stop() {
  if (!PLAYER.button) return;
  cancelAnimationFrame(PLAYER.frame);
  PLAYER.button.textContent = "Play";
  PLAYER.button.setAttribute("aria-pressed", "false");
  PLAYER.button = null;
}
