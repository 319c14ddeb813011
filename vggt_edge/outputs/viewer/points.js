// The point cloud: drawn into a target of its own, a budget of points a frame, then shaded by depth.

// Turbo and viridis at equal steps.
const RAMPS = {
  depth: "30123b 4662d7 36aaf9 1ae4b6 72fe5e c8ef34 faba39 f66b19 ca2a04 7a0403",
  confidence: "440154 482878 3e4989 31688e 26828e 1f9e89 35b779 6ece58 b5de2b fde725",
};
const MODES = ["rgb", "depth", "confidence", "view"];
const VIEWS_A_ROW = 128;

function rampColors(name) {
  const stops = RAMPS[name]
    .split(" ")
    .map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  const colors = new Uint8Array(4 * 256);
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * (stops.length - 1);
    const low = Math.min(Math.floor(at), stops.length - 2);
    for (let k = 0; k < 3; k++)
      colors[4 * i + k] = stops[low][k] + (at - low) * (stops[low + 1][k] - stops[low][k]);
    colors[4 * i + 3] = 255;
  }
  return colors;
}

const POINT_VERTEX = `
precision highp float;
precision highp int;
precision highp sampler2D;
uniform mat4 modelViewMatrix, projectionMatrix;
uniform sampler2D owners, ramps;
uniform vec3 center, halfSize;
uniform vec2 depthRange;
uniform float range, pixelsPerUnit, size, footprintCap, smallest, keepRank;
uniform int mode, solo;
in vec4 position; // x, y, z, view
in vec4 paint; // r, g, b, confidence rank
out vec3 tint;

vec3 ramp(float row, float at) { return texture(ramps, vec2(clamp(at, 0.0, 1.0) * 0.996 + 0.002, row)).rgb; }

void main() {
  int view = int(position.w * 65535.0 + 0.5);
  gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
  gl_PointSize = 1.0;
  if (paint.a * 255.0 + 0.5 < keepRank || (solo >= 0 && solo != view)) return;

  vec3 c = position.xyz * 2.0 * range - range;
  vec3 far = sign(c) / max(2.0 - abs(c), 1e-4);
  vec3 world = center + halfSize * mix(c, far, vec3(greaterThan(abs(c), vec3(1.0))));
  vec4 eye = modelViewMatrix * vec4(world, 1.0);
  gl_Position = projectionMatrix * eye;

  // One splat is as large as the pixel its camera saw it through.
  ivec2 cell = ivec2(view % ${VIEWS_A_ROW} * 2, view / ${VIEWS_A_ROW});
  float depth = dot(texelFetch(owners, cell, 0), vec4(world, 1.0));
  float footprint = min(abs(depth) * texelFetch(owners, cell + ivec2(1, 0), 0).x, footprintCap);
  gl_PointSize = clamp(footprint * size * pixelsPerUnit / max(gl_Position.w, 1e-6), smallest, 96.0);

  if (mode == 0) tint = paint.rgb;
  else if (mode == 1) tint = ramp(0.25, (depth - depthRange.x) / (depthRange.y - depthRange.x));
  else if (mode == 2) tint = ramp(0.75, paint.a);
  else {
    float hue = fract(float(view) * 0.61803399);
    vec3 pure = clamp(abs(fract(hue + vec3(0.0, 2.0, 1.0) / 3.0) * 6.0 - 3.0) - 1.0, 0.0, 1.0);
    tint = mix(vec3(0.92), pure, 0.62) * mix(0.72, 1.0, dot(paint.rgb, vec3(0.3, 0.6, 0.1)));
  }
}`;

const POINT_FRAGMENT = `
precision highp float;
in vec3 tint;
out vec4 color;
void main() {
  vec2 at = gl_PointCoord - 0.5;
  if (dot(at, at) > 0.25) discard;
  color = vec4(tint, 1.0);
}`;

const SCREEN_VERTEX = `
precision highp float;
in vec3 position;
out vec2 uv;
void main() {
  uv = position.xy * 0.5 + 0.5;
  gl_Position = vec4(position.xy, 0.0, 1.0);
}`;

// Eye-dome lighting (Boucheny 2009): what lies behind its neighbours on the screen is darker.
const SCREEN_FRAGMENT = `
precision highp float;
precision highp sampler2D;
uniform sampler2D colors, depths;
uniform vec2 nearFar, pixel;
uniform vec3 inner, outer;
uniform float strength, radius;
uniform int samples;
in vec2 uv;
out vec4 color;

float logDepth(float d) {
  float z = d * 2.0 - 1.0;
  return log2(2.0 * nearFar.x * nearFar.y / (nearFar.y + nearFar.x - z * (nearFar.y - nearFar.x)));
}

vec3 shaded(vec2 at, float depth) {
  if (depth >= 1.0) return mix(inner, outer, smoothstep(0.0, 0.75, length((uv - vec2(0.5, 0.55)) * vec2(1.0, 0.9))));
  float here = logDepth(depth), behind = 0.0;
  for (int i = 0; i < 8; i++) {
    float angle = float(i) * 0.785398;
    float d = texture(depths, at + vec2(cos(angle), sin(angle)) * radius * pixel).r;
    if (d < 1.0) behind += min(max(0.0, here - logDepth(d) - 0.003), 0.12);
  }
  return texture(colors, at).rgb * exp(-strength * behind);
}

void main() {
  vec3 sum = vec3(0.0);
  float nearest = 1.0;
  for (int i = 0; i < samples * samples; i++) {
    vec2 at = uv + ((vec2(i % samples, i / samples) + 0.5) / float(samples) - 0.5) * pixel;
    float depth = texture(depths, at).r;
    sum += shaded(at, depth);
    nearest = min(nearest, depth);
  }
  color = vec4(sum / float(samples * samples), 1.0);
  gl_FragDepth = nearest;
}`;

const FINE_PIXELS = 20e6; // no more than 160 MB of colour and depth
const FINE_BATCH = 300_000;

function pointTarget() {
  return new THREE.WebGLRenderTarget(1, 1, {
    minFilter: THREE.NearestFilter,
    magFilter: THREE.NearestFilter,
    depthTexture: new THREE.DepthTexture(1, 1, THREE.UnsignedIntType),
  });
}

/**
 * While the view changes, every frame draws the first `budget` points into a target of the canvas's
 * size. Once it stands still the remaining points are added, a batch a frame, without clearing;
 * then all are drawn into a target of twice the size, which replaces the first when it is complete.
 */
class PointCloud {
  constructor(scene) {
    this.count = scene.count;
    this.scene = scene;
    this.changed = true;
    this.stage = this.drawn = this.shown = 0;
    this.budget = this.batch = 500_000; // adapted to the device from the second frame on
    this.geometry = new THREE.BufferGeometry();
    this.geometry.setAttribute("position", new THREE.BufferAttribute(scene.codes, 4, true));
    this.geometry.setAttribute("paint", new THREE.BufferAttribute(scene.paint, 4, true));

    const rows = Math.max(1, Math.ceil(scene.owners.length / VIEWS_A_ROW));
    const owners = new Float32Array(rows * VIEWS_A_ROW * 8);
    scene.owners.forEach((owner, i) => owners.set(owner, 8 * i));
    const ownerTexture = new THREE.DataTexture(
      owners,
      2 * VIEWS_A_ROW,
      rows,
      THREE.RGBAFormat,
      THREE.FloatType,
    );
    ownerTexture.needsUpdate = true;
    const ramps = new Uint8Array([...rampColors("depth"), ...rampColors("confidence")]);
    const rampTexture = new THREE.DataTexture(ramps, 256, 2, THREE.RGBAFormat);
    rampTexture.needsUpdate = true;

    this.uniforms = {
      owners: { value: ownerTexture },
      ramps: { value: rampTexture },
      center: { value: new THREE.Vector3(...scene.center) },
      halfSize: { value: new THREE.Vector3(...scene.half) },
      range: { value: scene.range },
      depthRange: { value: new THREE.Vector2(...scene.depthRange) },
      footprintCap: { value: scene.footprintCap },
      pixelsPerUnit: { value: 1 },
      size: { value: 1 },
      smallest: { value: 1 },
      keepRank: { value: 0 },
      mode: { value: 0 },
      solo: { value: -1 },
    };
    const material = new THREE.RawShaderMaterial({
      glslVersion: THREE.GLSL3,
      vertexShader: POINT_VERTEX,
      fragmentShader: POINT_FRAGMENT,
      uniforms: this.uniforms,
      blending: THREE.NoBlending,
    });
    const points = new THREE.Points(this.geometry, material);
    points.frustumCulled = false;
    this.world = new THREE.Scene();
    this.world.add(points);

    this.targets = [pointTarget(), pointTarget()];
    this.screenUniforms = {
      colors: { value: null },
      depths: { value: null },
      nearFar: { value: new THREE.Vector2() },
      pixel: { value: new THREE.Vector2() },
      inner: { value: new THREE.Vector3() },
      outer: { value: new THREE.Vector3() },
      strength: { value: 1 },
      radius: { value: 1 },
      samples: { value: 1 },
    };
    const triangle = new THREE.BufferGeometry();
    triangle.setAttribute(
      "position",
      new THREE.BufferAttribute(new Float32Array([-1, -1, 0, 3, -1, 0, -1, 3, 0]), 3),
    );
    const screen = new THREE.Mesh(
      triangle,
      new THREE.RawShaderMaterial({
        glslVersion: THREE.GLSL3,
        vertexShader: SCREEN_VERTEX,
        fragmentShader: SCREEN_FRAGMENT,
        uniforms: this.screenUniforms,
        blending: THREE.NoBlending,
      }),
    );
    screen.frustumCulled = false;
    this.screen = new THREE.Scene();
    this.screen.add(screen);
  }

  /** Start again with the first points, because the picture has changed. */
  restart() {
    this.changed = true;
  }

  get complete() {
    return !this.changed && this.stage === this.stages;
  }

  /** Show the `percent` most confident points, of one view only unless `view` is negative. */
  choose(percent, view) {
    const rank = Math.round((1 - percent / 100) * 256);
    this.uniforms.keepRank.value = rank;
    this.uniforms.solo.value = view;
    const { codes, paint, countFromRank } = this.scene;
    this.visible = view < 0 ? countFromRank[rank] : 0;
    for (let i = 0; view >= 0 && i < this.count; i++) {
      if (codes[4 * i + 3] === view && paint[4 * i + 3] >= rank) this.visible++;
    }
    this.restart();
  }

  resize(width, height, ratio) {
    const fine = ratio < 2 && 4 * width * height <= FINE_PIXELS ? 2 : 1;
    this.stages = fine;
    this.targets[0].setSize(width, height);
    this.targets[1].setSize(fine > 1 ? fine * width : 1, fine > 1 ? fine * height : 1);
    this.screenUniforms.pixel.value.set(1 / width, 1 / height);
    this.screenUniforms.radius.value = 1.2 * ratio;
    this.ratio = ratio;
    this.restart();
  }

  /** Draw some more points, if any are left; true when there is more to present. */
  draw(renderer, camera) {
    const moving = this.changed;
    this.changed = false;
    if (moving) this.stage = this.drawn = 0;
    if (this.complete) return false;
    const target = this.targets[this.stage];
    const samples = this.stage + 1;
    this.uniforms.pixelsPerUnit.value = (target.height / 2) * camera.projectionMatrix.elements[5];
    this.uniforms.smallest.value = 1.3 * this.ratio * samples;
    renderer.setRenderTarget(target);
    if (this.drawn === 0) renderer.clear();
    const many = Math.min(moving ? this.budget : this.batch, this.count - this.drawn);
    this.geometry.setDrawRange(this.drawn, many);
    if (many > 0) renderer.render(this.world, camera);
    renderer.setRenderTarget(null);
    this.drawn += many;
    const full = this.drawn === this.count;
    if (this.stage > 0 && !full) return false;
    this.screenUniforms.colors.value = target.texture;
    this.screenUniforms.depths.value = target.depthTexture;
    this.screenUniforms.samples.value = samples;
    this.shown = this.drawn;
    if (full) {
      this.stage++;
      // A device that cannot draw many points at a time is spared the fine picture.
      if (this.batch < Math.min(this.count, FINE_BATCH)) this.stage = this.stages;
      else if (this.stage < this.stages) this.drawn = 0;
    }
    return true;
  }

  /** Put the picture, shaded, on the canvas. */
  present(renderer, camera) {
    this.screenUniforms.nearFar.value.set(camera.near, camera.far);
    renderer.clear();
    renderer.render(this.screen, camera);
  }

  /** How many points a frame may draw, from how long the last one took (milliseconds). */
  adapt(elapsed, moving) {
    const budget = moving ? "budget" : "batch";
    const [short, long] = moving ? [19, 24] : [40, 80];
    if (elapsed > long) this[budget] *= Math.max(0.5, short / elapsed);
    else if (elapsed < short) this[budget] *= 1.25;
    this[budget] = Math.ceil(
      Math.min(this.count, Math.max(moving ? 50_000 : 200_000, this[budget])),
    );
  }

  /** The nearest drawn point within `radius` pixels of (x, y), in pixels from the top left, or null. */
  pick(x, y, radius, camera, width, height) {
    const { codes, paint, range, center, half } = this.scene;
    const m = new THREE.Matrix4().multiplyMatrices(
      camera.projectionMatrix,
      camera.matrixWorldInverse,
    ).elements;
    const keep = this.uniforms.keepRank.value;
    const solo = this.uniforms.solo.value;
    let best = -1;
    let bestScore = Infinity;
    for (let i = 0; i < this.shown; i++) {
      if (paint[4 * i + 3] < keep || (solo >= 0 && codes[4 * i + 3] !== solo)) continue;
      const px = decodeAxis(codes[4 * i], range, center[0], half[0]);
      const py = decodeAxis(codes[4 * i + 1], range, center[1], half[1]);
      const pz = decodeAxis(codes[4 * i + 2], range, center[2], half[2]);
      const w = m[3] * px + m[7] * py + m[11] * pz + m[15];
      if (w <= camera.near) continue;
      const sx = ((m[0] * px + m[4] * py + m[8] * pz + m[12]) / w / 2 + 0.5) * width - x;
      const sy = (0.5 - (m[1] * px + m[5] * py + m[9] * pz + m[13]) / w / 2) * height - y;
      const off = (sx * sx + sy * sy) / (radius * radius);
      const score = w * (1 + 0.1 * off);
      if (off <= 1 && score < bestScore) {
        best = i;
        bestScore = score;
      }
    }
    return best < 0 ? null : this.scene.positionOf(best);
  }
}
