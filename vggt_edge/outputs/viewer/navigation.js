// Moving the eye: orbit, fly, pan, zoom, touch and animated flights. A pose is a position, a rotation
// and the distance of the pivot straight ahead, so a photograph's roll is kept until one drags.

const MOVES = new Set("wasdqe");
const CLICK_PIXELS = 5;

/**
 * What a key is called, for all shortcuts alike: the letter or sign it types, so that labels are true
 * on every layout and no key has two meanings; on layouts without Latin letters, the US letter there.
 */
function keyName({ key, code }) {
  if (key.length > 1) return key;
  if (key <= "\x7f") return key.toLowerCase();
  return /^(Key|Digit).$/.test(code) ? code.slice(-1).toLowerCase() : key;
}

class Navigation {
  /** `on` has change(), click(x, y), doubleClick(x, y), hover(x, y) and leave(), the user's own moves. */
  constructor(canvas, camera, up, radius, on) {
    Object.assign(this, { canvas, camera, up, radius, on });
    this.distance = 1;
    this.flying = false;
    this.flight = null;
    this.held = new Map(); // physical key to the move it began, whatever Shift makes of it later
    this.pointers = new Map();
    this.spin = new THREE.Vector2();
    this.hovering = null; // where the pointer is, until it has been looked after
    this.lastClick = { time: -Infinity, x: 0, y: 0 };

    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.moved(event));
    canvas.addEventListener("pointerleave", () => (this.hovering = null));
    for (const kind of ["pointerup", "pointercancel"])
      canvas.addEventListener(kind, (event) => this.released(event));
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    window.addEventListener("keydown", (event) => {
      const name = keyName(event);
      if (!MOVES.has(name) || event.ctrlKey || event.metaKey || event.altKey) return;
      this.held.set(event.code, name);
      this.fast = event.shiftKey;
      this.touched();
    });
    window.addEventListener("keyup", (event) => {
      this.held.delete(event.code);
      this.fast = event.shiftKey;
    });
    window.addEventListener("blur", () => this.held.clear());
  }

  get forward() {
    return new THREE.Vector3(0, 0, -1).applyQuaternion(this.camera.quaternion);
  }

  get pivot() {
    return this.camera.position.clone().addScaledVector(this.forward, this.distance);
  }

  /** World units that one CSS pixel covers at the pivot. */
  get pixel() {
    return (
      (2 * this.distance * Math.tan((this.camera.fov * Math.PI) / 360)) / this.canvas.clientHeight
    );
  }

  /** The rotation that looks along `forward` with the horizon level. */
  level(forward) {
    const eye = new THREE.Vector3();
    return new THREE.Quaternion().setFromRotationMatrix(
      new THREE.Matrix4().lookAt(eye, forward, this.up),
    );
  }

  lookFrom(position, target, seconds = 0, fov = 50) {
    const forward = target.clone().sub(position);
    return this.go(
      { position, quaternion: this.level(forward), distance: forward.length(), fov },
      seconds,
    );
  }

  /** Fly to a pose {position, quaternion, distance, fov}; `arrived` is called unless interrupted. */
  go(pose, seconds = 0.9, arrived = () => {}) {
    if (window.matchMedia("(prefers-reduced-motion: reduce)").matches) seconds = 0;
    this.spin.set(0, 0);
    const from = {
      position: this.camera.position.clone(),
      quaternion: this.camera.quaternion.clone(),
      distance: this.distance,
      fov: this.camera.fov,
    };
    this.flight = { from, to: pose, seconds, began: performance.now(), arrived };
    if (seconds === 0) this.step(performance.now(), 0);
    this.on.change();
  }

  /** The user has taken over. */
  touched() {
    this.flight = null;
    this.on.leave();
    this.on.change();
  }

  down(event) {
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    this.spin.set(0, 0);
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (this.pointers.size === 1)
      this.press = { x: event.clientX, y: event.clientY, button: event.button, moved: false };
    else this.press.moved = true;
  }

  moved(event) {
    const last = this.pointers.get(event.pointerId);
    if (!last) return this.hover(event.clientX, event.clientY);
    if (
      !this.press.moved &&
      Math.hypot(event.clientX - this.press.x, event.clientY - this.press.y) < CLICK_PIXELS
    )
      return;
    const before = this.gesture();
    this.press.moved = true;
    this.canvas.classList.add("dragging");
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    const after = this.gesture();
    const dx = after.x - before.x;
    const dy = after.y - before.y;
    this.touched();
    if (this.pointers.size > 1) {
      this.pan(dx, dy);
      if (before.spread > 0) this.dolly(before.spread / after.spread, after.x, after.y);
    } else if (this.press.button === 0 && !event.shiftKey) {
      this.turn(dx, dy);
      this.spin.set(dx, dy);
      this.spun = event.timeStamp;
    } else this.pan(dx, dy);
  }

  /** The pointer may move many times a frame; once a frame is what is under it looked for. */
  hover(x, y) {
    const waiting = this.hovering;
    this.hovering = { x, y };
    if (waiting) return;
    requestAnimationFrame(() => {
      const at = this.hovering;
      this.hovering = null;
      if (at) this.on.hover(at.x, at.y);
    });
  }

  released(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    if (this.pointers.size > 0) return;
    this.canvas.classList.remove("dragging");
    if (event.timeStamp - (this.spun ?? 0) > 60) this.spin.set(0, 0);
    if (this.press.moved || this.press.button !== 0 || event.type === "pointercancel")
      return this.on.change();
    const { time, x, y } = this.lastClick;
    const twice =
      event.timeStamp - time < 350 && Math.hypot(event.clientX - x, event.clientY - y) < 12;
    this.lastClick = {
      time: twice ? -Infinity : event.timeStamp,
      x: event.clientX,
      y: event.clientY,
    };
    if (twice) this.on.doubleClick(event.clientX, event.clientY);
    else this.on.click(event.clientX, event.clientY);
  }

  /** Middle and spread of the fingers on the screen. */
  gesture() {
    const fingers = [...this.pointers.values()];
    const x = fingers.reduce((sum, finger) => sum + finger.x, 0) / fingers.length;
    const y = fingers.reduce((sum, finger) => sum + finger.y, 0) / fingers.length;
    const spread =
      fingers.length > 1 ? Math.hypot(fingers[0].x - fingers[1].x, fingers[0].y - fingers[1].y) : 0;
    return { x, y, spread };
  }

  wheel(event) {
    event.preventDefault();
    this.touched();
    const lines = event.deltaMode === 1 ? 30 : event.deltaMode === 2 ? 400 : 1;
    const turn = Math.max(-200, Math.min(200, event.deltaY * lines));
    this.dolly(Math.exp(turn * (event.ctrlKey ? 0.008 : 0.0016)), event.clientX, event.clientY);
  }

  /** Orbit about the pivot, or look around when flying; a rolled camera rights itself on the way. */
  turn(dx, dy) {
    const pivot = this.pivot;
    const rate = this.flying ? 0.0028 : -0.005; // radians a pixel: drag the view, or drag the scene
    const rotation = this.camera.quaternion;
    rotation.premultiply(new THREE.Quaternion().setFromAxisAngle(this.up, dx * rate));
    const right = new THREE.Vector3(1, 0, 0).applyQuaternion(rotation);
    const angle = this.forward.angleTo(this.up); // 0 looks straight up
    const tilt = dy * rate;
    const limited = Math.max(angle - Math.PI + 0.03, Math.min(angle - 0.03, tilt));
    rotation.premultiply(new THREE.Quaternion().setFromAxisAngle(right, limited));
    rotation.slerp(this.level(this.forward), 0.12).normalize();
    if (!this.flying)
      this.camera.position.copy(pivot).addScaledVector(this.forward, -this.distance);
    this.on.change();
  }

  pan(dx, dy) {
    const step = new THREE.Vector3(-dx, dy, 0).multiplyScalar(this.pixel);
    this.camera.position.add(step.applyQuaternion(this.camera.quaternion));
    this.on.change();
  }

  /** Scale the distance along the ray through (x, y); close to the pivot, push the pivot ahead instead. */
  dolly(factor, x, y) {
    const rect = this.canvas.getBoundingClientRect();
    const ray = new THREE.Vector3(
      (x - rect.left - rect.width / 2) * this.pixel,
      -(y - rect.top - rect.height / 2) * this.pixel,
      -this.distance,
    ).applyQuaternion(this.camera.quaternion);
    const shortest = 0.03 * this.radius;
    const factorLeft = Math.min(factor, (60 * this.radius) / this.distance);
    this.camera.position.addScaledVector(ray, 1 - factorLeft);
    this.distance = Math.max(shortest, this.distance * factorLeft);
    if (this.distance === shortest && factor < 1) {
      this.camera.position.addScaledVector(this.forward, 0.25 * shortest);
    }
    this.on.change();
  }

  /** Advance what moves by itself by `elapsed` seconds; true while something does. */
  step(now, elapsed) {
    if (this.flight) {
      const { from, to, seconds, began, arrived } = this.flight;
      const linear = seconds > 0 ? Math.min(1, (now - began) / 1000 / seconds) : 1;
      const t = linear < 0.5 ? 4 * linear ** 3 : 1 - (2 - 2 * linear) ** 3 / 2;
      this.camera.position.lerpVectors(from.position, to.position, t);
      this.camera.quaternion.slerpQuaternions(from.quaternion, to.quaternion, t);
      this.distance = from.distance + (to.distance - from.distance) * t;
      this.camera.fov = from.fov + (to.fov - from.fov) * t;
      if (linear === 1) {
        this.flight = null;
        arrived();
      }
      return true;
    }
    if (this.held.size > 0) {
      const moves = new Set(this.held.values());
      const has = (plus, minus) => moves.has(plus) - moves.has(minus);
      const step = new THREE.Vector3(has("d", "a"), 0, has("s", "w")).applyQuaternion(
        this.camera.quaternion,
      );
      step.addScaledVector(this.up, has("e", "q"));
      const speed =
        Math.max(0.25 * this.radius, Math.min(this.distance, 4 * this.radius)) *
        (this.fast ? 3 : 0.8);
      this.camera.position.addScaledVector(step, speed * Math.min(elapsed, 0.1));
      return true;
    }
    if (this.pointers.size === 0 && this.spin.length() > 0.4) {
      this.spin.multiplyScalar(Math.exp(-elapsed * 7));
      this.turn(this.spin.x, this.spin.y);
      return true;
    }
    return false;
  }
}

/** Where to look and from how far along `back`, so that nearly all points and the cameras near them show. */
function fitView(scene, up, aspect, back) {
  const middle = new THREE.Vector3(...scene.middle);
  const side = new THREE.Vector3().crossVectors(up, back).normalize();
  const over = new THREE.Vector3().crossVectors(back, side);
  const points = Array.from({ length: Math.min(3000, scene.count) }, (_, i) => scene.positionOf(i));
  const eyes = scene.cameras
    .map((camera) => camera.center)
    .filter((center) => center.distanceTo(middle) < 3 * scene.radius);
  /** The largest of `measure`, but for 3 % of the points. */
  const most = (measure) => {
    const values = points.map(measure).sort((a, b) => a - b);
    return Math.max(...eyes.map(measure), values[Math.round(0.97 * (values.length - 1))] ?? 0);
  };
  const target = middle.clone();
  for (const axis of [side, over]) {
    const along = (point) => point.clone().sub(middle).dot(axis);
    target.addScaledVector(axis, (most(along) - most((point) => -along(point))) / 2);
  }
  // Room is left for the controls.
  const half = Math.tan((25 * Math.PI) / 180);
  const distance = most((point) => {
    const offset = point.clone().sub(target);
    const across = Math.abs(offset.dot(side)) / (0.74 * half * aspect);
    return offset.dot(back) + Math.max(across, Math.abs(offset.dot(over)) / (0.8 * half));
  });
  target.addScaledVector(over, -0.08 * half * distance);
  return { target, distance: Math.max(distance, 0.5 * scene.radius) };
}
