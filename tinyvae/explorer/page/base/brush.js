// ---- a surface on which one draws, by a pointer or by keyboard -------------------------------------------------------
// act(u, v, from, phase) is called for places u across and v down in [0, 1]; `from` is the place before, or null where a
// stroke begins. moved(u, v, down) is called when the keyboard moves the cursor.

function brush(canvas, step, act, moved, finished) {
  let last = null, cursor = [0.5, 0.5], down = false;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = place(event);
    act(...last, null);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (last === null) return;
    const now = place(event);
    act(...now, last);
    last = now;
  });
  const lift = () => {
    if (last !== null) finished();
    last = null;
  };
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (move) {
      const before = cursor;
      const [across, along] = step();
      cursor = [cursor[0] + move[0] * across, cursor[1] + move[1] * along].map((v) => Math.min(Math.max(v, 0), 0.999));
      if (down) act(...cursor, before);
    } else if (event.key === " ") {
      down = !down;
      if (down) act(...cursor, null);
      else finished();
    } else {
      return;
    }
    event.preventDefault();
    moved(...cursor, down);
  });
  canvas.addEventListener("blur", () => {
    if (down) finished();
    down = false;
    moved(null, null, false);
  });
  canvas.addEventListener("focus", () => {
    if (canvas.matches(":focus-visible")) moved(...cursor, down);
  });
}
