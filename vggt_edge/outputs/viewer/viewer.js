// Puts the parts together, draws only when something has changed, and tells tests what it shows.

const THEMES = {
  dark: { inner: [0.105, 0.115, 0.14], outer: [0.04, 0.045, 0.058], grid: [0.75, 0.82, 0.95] },
  light: { inner: [0.985, 0.988, 0.992], outer: [0.86, 0.875, 0.9], grid: [0.1, 0.15, 0.25] },
};

class Viewer {
  constructor(scene) {
    this.scene = scene;
    this.renderer = new THREE.WebGLRenderer({
      canvas: by("canvas"),
      antialias: true,
      powerPreference: "high-performance",
    });
    this.renderer.autoClear = false;
    this.renderer.outputColorSpace = THREE.LinearSRGBColorSpace; // the shaders write sRGB themselves
    this.camera = new THREE.PerspectiveCamera(50, 1, 0.01, 100);
    this.up = new THREE.Vector3(...scene.up);
    this.cloud = new PointCloud(scene);
    const gl = this.renderer.getContext();
    const maxLayers = gl.getParameter(gl.MAX_ARRAY_TEXTURE_LAYERS);
    this.frusta = new Frusta(scene, Math.min(2048, maxLayers));
    this.ground = new Ground(scene, this.up);
    this.gridVisible = true;
    this.shading = true;
    this.frame = 0;
    this.last = 0;
    this.rate = 0;
    this.waiting = [];
    this.navigation = new Navigation(by("canvas"), this.camera, this.up, scene.radius, {
      change: () => this.redraw(),
      click: (x, y) => this.click(x, y),
      doubleClick: (x, y) => this.pivotOn(x, y),
      hover: (x, y) =>
        this.hoverCamera(
          this.frusta.pick(x, y, this.camera, window.innerWidth, window.innerHeight),
          x,
          y,
        ),
      leave: () => this.lookFromInside(-1),
    });
    window.addEventListener("resize", () => this.resize());
    by("canvas").addEventListener("pointerleave", () => this.hoverCamera(-1));
    by("canvas").addEventListener("webglcontextrestored", () => {
      this.fence = null;
      this.redraw();
    });

    by("summary").textContent = describeScene(scene);
    buildStrip(this);
    connectControls(this);
    this.resize();
    this.setTheme("dark");
    this.setColorMode("rgb");
    this.setConfidence(100);
    this.setPointSize(1);
    this.setFrustumSize(1);
    this.setOverlay(0);
    this.resetView(0);
  }

  // Drawing ------------------------------------------------------------------------------------

  /** The points must be drawn again. */
  redraw() {
    this.cloud?.restart();
    this.refresh();
  }

  /** Something in front of the points has changed. */
  refresh() {
    this.stale = true;
    this.schedule();
  }

  schedule() {
    if (!this.frame) this.frame = requestAnimationFrame((now) => this.draw(now));
  }

  resize() {
    const ratio = Math.min(window.devicePixelRatio, 2);
    this.renderer.setPixelRatio(ratio);
    this.renderer.setSize(window.innerWidth, window.innerHeight, false);
    this.cloud.resize(by("canvas").width, by("canvas").height, ratio);
    this.camera.aspect = window.innerWidth / window.innerHeight;
    for (const lines of [this.frusta.lines, this.frusta.outline, this.ground.axes]) {
      lines.uniforms.resolution.value.set(window.innerWidth, window.innerHeight);
    }
    this.redraw();
  }

  draw(now) {
    this.frame = 0;
    // A slow device must not be handed the next frame before it is done with the last.
    if (this.busy()) return this.schedule();
    const elapsed = now - this.last;
    this.last = now;
    if (this.navigation.step(now, Math.min(elapsed / 1000, 0.1))) this.redraw();
    const moving = this.cloud.changed;
    if (moving && this.moving) this.rate = this.rate ? 0.85 * this.rate + 0.15 * elapsed : elapsed;
    // Two frames running: the time between them is what drawing one costs.
    if (moving === this.moving) this.cloud.adapt(elapsed, moving);
    this.moving = moving;
    this.paint();
    const gl = this.renderer.getContext();
    this.fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    gl.flush();
    this.showStatus();
    if (!this.cloud.complete) this.schedule();
    else if (!this.frame) {
      this.waiting.splice(0).forEach((resolve) => resolve());
    }
  }

  paint() {
    const away = this.camera.position.distanceTo(new THREE.Vector3(...this.scene.middle));
    this.camera.far = 1.1 * (away + this.scene.reach);
    this.camera.near = Math.max(
      1e-5 * this.camera.far,
      Math.min(0.01 * this.navigation.distance, 0.01 * this.scene.radius),
    );
    this.camera.updateProjectionMatrix();
    this.camera.updateMatrixWorld();
    this.cloud.screenUniforms.strength.value = this.shading ? 1.5 : 0;
    const more = this.cloud.draw(this.renderer, this.camera);
    if (!more && !this.stale) return; // the canvas keeps what it shows
    this.stale = false;
    this.cloud.present(this.renderer, this.camera);
    if (this.gridVisible && this.frusta.inside < 0)
      this.renderer.render(this.ground.world, this.camera);
    this.renderer.render(this.frusta.world, this.camera);
  }

  busy() {
    if (!this.fence) return false;
    const gl = this.renderer.getContext();
    if (gl.clientWaitSync(this.fence, 0, 0) === gl.TIMEOUT_EXPIRED) return true;
    gl.deleteSync(this.fence);
    this.fence = null;
    return false;
  }

  showStatus() {
    by("rate").textContent = this.rate ? `${Math.round(1000 / this.rate)} fps` : "";
    const shown = this.visibleCount();
    const part = this.cloud.count ? this.cloud.shown / this.cloud.count : 1;
    const drawn = Math.round(shown * part).toLocaleString("en");
    by("drawn").textContent = `${drawn} of ${this.cloud.count.toLocaleString("en")} points`;
    by("scale").textContent =
      this.gridVisible && this.frusta.inside < 0
        ? `grid ${lengthText(this.ground.cell, this.scene.units)}`
        : "";
  }

  /** Resolves when all points are on the canvas and nothing moves. */
  async settled() {
    await this.frusta.lensReady;
    return new Promise((resolve) => {
      this.waiting.push(resolve);
      this.schedule();
    });
  }

  async screenshot() {
    await this.settled();
    this.stale = true;
    this.paint(); // a canvas keeps its picture only until the task ends
    const blob = await new Promise((resolve) => by("canvas").toBlob(resolve));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${document.title}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  // What is shown ------------------------------------------------------------------------------

  /** Points that the confidence slider and the choice of a view leave. */
  visibleCount() {
    return this.cloud.visible;
  }

  choosePoints() {
    const solo = by("solo").checked ? this.frusta.selected : -1;
    this.cloud.choose(this.confidence, solo);
    this.refresh();
  }

  setConfidence(percent) {
    this.confidence = percent;
    setSlider("confidence", percent, `${percent} %`);
    this.choosePoints();
  }

  setPointSize(size) {
    this.cloud.uniforms.size.value = 1.5 * size;
    setSlider("size", Math.log2(size), `${size.toFixed(2)}×`);
    this.redraw();
  }

  setColorMode(mode) {
    this.cloud.uniforms.mode.value = MODES.indexOf(mode);
    showLegend(this, mode);
    this.redraw();
  }

  setFrustumSize(size) {
    this.frusta.scale = this.scene.frustum * size;
    setSlider("frustum", Math.log2(size), `${size.toFixed(2)}×`);
    this.frusta.update();
    this.refresh();
  }

  setOverlay(opacity) {
    this.frusta.overlay = opacity;
    setSlider("overlay", 100 * opacity, `${Math.round(100 * opacity)} %`);
    if (opacity > 0 && this.frusta.inside < 0 && this.frusta.selected >= 0)
      this.selectCamera(this.frusta.selected);
    this.frusta.update();
    this.refresh();
  }

  setTheme(name) {
    this.theme = document.documentElement.dataset.theme = name;
    this.cloud.screenUniforms.inner.value.set(...THEMES[name].inner);
    this.cloud.screenUniforms.outer.value.set(...THEMES[name].outer);
    this.ground.uniforms.ink.value.set(...THEMES[name].grid);
    this.frusta.dark = name === "dark";
    this.frusta.update();
    this.refresh();
  }

  setFlying(flying) {
    this.navigation.flying = flying;
    by("fly").setAttribute("aria-pressed", flying);
  }

  toggle(what, on) {
    if (what === "shading") this.shading = on;
    if (what === "grid") this.gridVisible = on;
    if (what === "frusta") this.frusta.visible = on;
    if (what === "photographs") this.frusta.photographs = on;
    if (what === "solo") this.choosePoints();
    this.frusta.update();
    this.refresh();
  }

  // Cameras and views --------------------------------------------------------------------------

  click(x, y) {
    const i = this.frusta.pick(x, y, this.camera, window.innerWidth, window.innerHeight);
    if (i >= 0) this.selectCamera(i);
  }

  pivotOn(x, y) {
    const { innerWidth, innerHeight } = window;
    const point = this.cloud.pick(x, y, 8, this.camera, innerWidth, innerHeight);
    if (!point) return;
    const { camera, navigation } = this;
    const distance = camera.position.distanceTo(point);
    navigation.touched();
    navigation.lookFrom(
      camera.position.clone().lerp(point, Math.max(0, 1 - navigation.distance / distance) * 0.5),
      point,
      0.5,
      camera.fov,
    );
  }

  hoverCamera(i, x = 0, y = 0) {
    const tip = by("tip");
    tip.hidden = i < 0 || x === 0;
    if (!tip.hidden) {
      tip.textContent = this.scene.cameras[i].name;
      tip.style.translate = `${Math.min(x + 14, window.innerWidth - 160)}px ${y + 14}px`;
    }
    if (i === this.frusta.hovered) return;
    by("canvas").classList.toggle("over", i >= 0);
    this.frusta.hover(i);
    this.refresh();
  }

  stepCamera(step) {
    const many = this.scene.cameras.length;
    if (many === 0) return;
    const from = this.frusta.selected < 0 ? (step > 0 ? -1 : 0) : this.frusta.selected;
    this.selectCamera((from + step + many) % many);
  }

  /** Fly to a camera and show its photograph; -1 closes the panel. */
  selectCamera(i, seconds = 0.9) {
    this.frusta.selected = i;
    this.hoverCamera(-1);
    if (i < 0) by("solo").checked = false;
    this.toggle("solo");
    showCamera(this, i);
    if (i < 0) return this.lookFromInside(-1);
    const camera = this.scene.cameras[i];
    const [left, top, right, bottom] = camera.crop;
    // The view's vertical angle that holds the whole photograph, measured from its optical axis.
    const tall = Math.max(Math.abs(top - camera.cy), Math.abs(bottom - camera.cy)) / camera.fy;
    const wide = Math.max(Math.abs(left - camera.cx), Math.abs(right - camera.cx)) / camera.fx;
    const fov = (360 / Math.PI) * Math.atan(Math.max(tall, wide / this.camera.aspect) * 1.04);
    const quaternion = new THREE.Quaternion().setFromRotationMatrix(camera.worldFromCamera);
    quaternion.multiply(new THREE.Quaternion(1, 0, 0, 0)); // OpenCV's axes to OpenGL's
    this.frusta.inside = -1;
    this.navigation.go(
      { position: camera.center, quaternion, distance: camera.depth, fov },
      seconds,
      () => this.lookFromInside(i),
    );
  }

  lookFromInside(i) {
    if (i === this.frusta.inside) return;
    this.frusta.lookThrough(i, () => this.refresh());
    this.frusta.update();
    this.refresh();
  }

  /** Three quarters from behind the first camera, at the middle of what there is to see. */
  resetView(seconds = 0.9) {
    const first = this.scene.cameras[0];
    const ahead = first
      ? new THREE.Vector3(0, 0, 1).transformDirection(first.worldFromCamera)
      : new THREE.Vector3(0, 0, 1);
    ahead.addScaledVector(this.up, -ahead.dot(this.up));
    if (ahead.length() < 0.1) ahead.set(this.up.y, this.up.z, this.up.x);
    ahead.normalize();
    const side = new THREE.Vector3().crossVectors(ahead, this.up).normalize();
    const back = ahead
      .multiplyScalar(-0.82)
      .addScaledVector(side, 0.42)
      .addScaledVector(this.up, 0.42)
      .normalize();
    const { target, distance } = fitView(this.scene, this.up, this.camera.aspect, back);
    const position = target.clone().addScaledVector(back, distance);
    this.lookFromInside(-1);
    this.navigation.lookFrom(position, target, seconds);
  }

  state() {
    const { frusta, cloud, navigation } = this;
    return {
      drawn: cloud.shown,
      budget: cloud.budget,
      frameMilliseconds: this.rate,
      theme: this.theme,
      mode: MODES[cloud.uniforms.mode.value],
      selected: frusta.selected,
      inside: frusta.inside,
      flying: navigation.flying,
      position: this.camera.position.toArray(),
      pivot: navigation.pivot.toArray(),
      distance: navigation.distance,
    };
  }
}

async function start() {
  const started = performance.now();
  await new Promise((resolve) => setTimeout(resolve)); // let the loading line appear
  const viewer = new Viewer(await readScene());
  Object.assign(window.vggtViewer, {
    pointCount: viewer.cloud.count,
    visibleCount: () => viewer.visibleCount(),
    setConfidence: (percent) => viewer.setConfidence(percent),
    setColorMode: (mode) => viewer.setColorMode(mode),
    setTheme: (name) => viewer.setTheme(name),
    selectCamera: (i, seconds) => viewer.selectCamera(i, seconds),
    settled: () => viewer.settled(),
    state: () => viewer.state(),
    viewer,
  });
  await viewer.settled();
  by("loading").classList.add("done");
  await viewer.frusta.load(() => viewer.refresh());
  await viewer.settled();
  window.vggtViewer.loadMilliseconds = performance.now() - started;
}

window.vggtViewer = {
  ready: start().catch((error) => {
    by("loading").className = "failed";
    by("loading").lastElementChild.textContent =
      `This scene cannot be shown: ${error.message}. The page needs a browser with WebGL 2.`;
    throw error;
  }),
};
