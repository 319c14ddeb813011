// The controls on the page: each reads and sets the state of `viewer`, none draws.

const by = (id) => document.getElementById(id);

function setSlider(id, value, text) {
  const input = by(id);
  input.value = value;
  input.style.setProperty(
    "--at",
    `${(100 * (input.value - input.min)) / (input.max - input.min)}%`,
  );
  by(`${id}-value`).value = text;
}

function buildStrip(viewer) {
  const strip = by("strip");
  viewer.scene.cameras.forEach((camera, i) => {
    const button = document.createElement("button");
    button.setAttribute("role", "option");
    button.title = camera.name;
    button.dataset.camera = i;
    const image = document.createElement("img");
    image.loading = "lazy";
    image.alt = camera.name;
    image.src = camera.url;
    const number = document.createElement("span");
    number.textContent = i + 1;
    button.append(image, number);
    button.addEventListener("click", () => viewer.selectCamera(i));
    button.addEventListener("pointerenter", () => viewer.hoverCamera(i));
    button.addEventListener("pointerleave", () => viewer.hoverCamera(-1));
    strip.append(button);
  });
  strip.hidden = viewer.scene.cameras.length === 0;
  by("camera-group").hidden = strip.hidden;
  document.documentElement.style.setProperty("--strip", strip.hidden ? "0px" : "82px");
  strip.addEventListener(
    "wheel",
    (event) => {
      if (event.deltaX === 0) strip.scrollLeft += event.deltaY;
    },
    { passive: true },
  );
}

function showCamera(viewer, i) {
  const camera = viewer.scene.cameras[i];
  by("camera").hidden = !camera;
  for (const button of by("strip").children) {
    const chosen = button.dataset.camera === String(i);
    button.setAttribute("aria-selected", chosen);
    if (chosen) button.scrollIntoView({ block: "nearest", inline: "nearest", behavior: "smooth" });
  }
  if (!camera) return;
  by("photo").src = camera.url;
  by("photo").alt = camera.name;
  by("camera-name").textContent = camera.name;
  by("camera-name").title = camera.source;
  const [height, width] = camera.sourceSize;
  const field = (side, focal) =>
    `${((2 * Math.atan(side / 2 / focal) * 180) / Math.PI).toFixed(1)}°`;
  const numbers = (values, digits) => values.map((value) => value.toFixed(digits)).join(", ");
  const facts = [
    ["Camera", `${i + 1} of ${viewer.scene.cameras.length}`],
    ["Picture", `${width} × ${height}`],
    ["Focal length", `${numbers([camera.sourceFx, camera.sourceFy], 1)} px`],
    ["Principal point", `${numbers([camera.sourceCx, camera.sourceCy], 1)} px`],
    ["Field of view", `${field(width, camera.sourceFx)} × ${field(height, camera.sourceFy)}`],
    [
      "Position",
      numbers(camera.center.toArray(), 3) + (viewer.scene.units === "metres" ? " m" : ""),
    ],
    ["Points", camera.points.toLocaleString("en")],
  ];
  by("facts").replaceChildren(
    ...facts.flatMap(([name, value]) => {
      const term = document.createElement("dt");
      const text = document.createElement("dd");
      term.textContent = name;
      text.textContent = value;
      return [term, text];
    }),
  );
}

function showLegend(viewer, mode) {
  for (const button of by("modes").children)
    button.setAttribute("aria-checked", button.dataset.mode === mode);
  by("legend").hidden = !(mode in RAMPS);
  if (by("legend").hidden) return;
  const bar = by("legend-bar").getContext("2d");
  bar.putImageData(new ImageData(new Uint8ClampedArray(rampColors(mode)), 256, 1), 0, 0);
  const [near, far] = viewer.scene.depthRange;
  const depth = mode === "depth";
  by("legend-low").textContent = depth ? lengthText(near, viewer.scene.units) : "least";
  by("legend-high").textContent = depth ? lengthText(far, viewer.scene.units) : "most";
}

function describeScene(scene) {
  const count = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
  const units = scene.units === "metres" ? "metric" : "arbitrary scale";
  return [count(scene.count, "point"), count(scene.cameras.length, "camera"), units].join(" · ");
}

function connectControls(viewer) {
  const slide = (id, action) =>
    by(id).addEventListener("input", (event) => action(Number(event.target.value)));
  slide("confidence", (value) => viewer.setConfidence(value));
  slide("size", (value) => viewer.setPointSize(2 ** value));
  slide("frustum", (value) => viewer.setFrustumSize(2 ** value));
  slide("overlay", (value) => viewer.setOverlay(value / 100));
  for (const id of ["shading", "frusta", "photographs", "grid", "solo"]) {
    by(id).addEventListener("change", (event) => viewer.toggle(id, event.target.checked));
  }
  for (const button of by("modes").children)
    button.addEventListener("click", () => viewer.setColorMode(button.dataset.mode));

  const press = (id, action) => by(id).addEventListener("click", action);
  const help = (open = by("help").hidden) => (by("help").hidden = !open);
  const panel = () => {
    by("panel").hidden = !by("panel").hidden;
    by("panel-toggle").setAttribute("aria-pressed", !by("panel").hidden);
  };
  const flip = (id) => by(id).click();
  press("reset", () => viewer.resetView());
  press("fly", () => viewer.setFlying(!viewer.navigation.flying));
  press("theme", () => viewer.setTheme(viewer.theme === "dark" ? "light" : "dark"));
  press("screenshot", () => viewer.screenshot());
  press("panel-toggle", panel);
  press("help-toggle", () => help());
  press("help", () => help(false));
  press("previous", () => viewer.stepCamera(-1));
  press("next", () => viewer.stepCamera(1));
  press("close", () => viewer.selectCamera(-1));
  if (window.innerWidth <= 640) panel();

  const nudge = (id, steps) => {
    by(id).value = Number(by(id).value) + steps * Number(by(id).step);
    by(id).dispatchEvent(new Event("input"));
  };
  const keys = {
    ArrowLeft: () => viewer.stepCamera(-1),
    ArrowRight: () => viewer.stepCamera(1),
    1: () => viewer.setColorMode("rgb"),
    2: () => viewer.setColorMode("depth"),
    3: () => viewer.setColorMode("confidence"),
    4: () => viewer.setColorMode("view"),
    "-": () => nudge("size", -4),
    "+": () => nudge("size", 4),
    "=": () => nudge("size", 4),
    "[": () => nudge("confidence", -2),
    "]": () => nudge("confidence", 2),
    c: () => flip("frusta"),
    p: () => flip("photographs"),
    g: () => flip("grid"),
    l: () => flip("shading"),
    o: () => viewer.frusta.selected >= 0 && flip("solo"),
    b: () => flip("theme"),
    h: panel,
    f: () => flip("fly"),
    r: () => flip("reset"),
    x: () => flip("screenshot"),
    "?": () => help(),
    Escape: () => (by("help").hidden ? viewer.selectCamera(-1) : help(false)),
  };
  window.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.type === "range" && event.key.startsWith("Arrow")) return;
    const key = keyName(event);
    if (!Object.hasOwn(keys, key)) return;
    event.preventDefault();
    keys[key]();
  });
}
