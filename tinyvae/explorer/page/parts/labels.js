// ---- the label that the decoder is given, as a choice ----------------------------------------------------------------

part({
  start: () => {
    if (!RUN.model.chooses()) return;
    byId("labels").hidden = false;
    RUN.names.slice(0, RUN.config.classes).forEach((name, y) => {
      const label = make("label"), radio = make("input", "", { type: "radio", name: "label", value: y });
      radio.addEventListener("change", () => giveLabel(y));
      label.append(radio, name);
      byId("labels").querySelector(".choices").append(label);
    });
  },
  show: (what) => {
    if (!RUN.model.chooses() || what === "z") return;
    byId("labels").querySelectorAll("input").forEach((radio, y) => { radio.checked = y === HERE.datum.y; });
  },
});
