// The ground grid and the axes.

const GRID_VERTEX = `
precision highp float;
uniform mat4 viewMatrix, projectionMatrix;
uniform vec3 origin, across, along;
in vec3 position;
out vec2 at;
uniform float reach;
void main() {
  at = position.xy * reach;
  gl_Position = projectionMatrix * viewMatrix * vec4(origin + across * at.x + along * at.y, 1.0);
}`;

const GRID_FRAGMENT = `
precision highp float;
uniform float cell, reach;
uniform vec3 ink;
in vec2 at;
out vec4 color;
float lines(float step) {
  vec2 p = at / step, slope = fwidth(p);
  vec2 near = abs(fract(p - 0.5) - 0.5) / slope;
  return (1.0 - min(min(near.x, near.y), 1.0)) * (1.0 - smoothstep(0.2, 0.6, max(slope.x, slope.y)));
}
void main() {
  float fade = 1.0 - smoothstep(0.15, 1.0, length(at) / reach);
  color = vec4(ink, (0.16 * lines(cell) + 0.2 * lines(cell * 5.0)) * fade);
  if (color.a < 0.004) discard;
}`;

/** 1, 2 or 5 times a power of ten, not above `value`. */
function roundLength(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [5, 2, 1].find((step) => step * power <= value * 1.0001);
}

class Ground {
  constructor(scene, up) {
    this.cell = roundLength(scene.radius / 5);
    const across = new THREE.Vector3(Math.abs(up.x) > 0.9 ? 0 : 1, 0, Math.abs(up.x) > 0.9 ? 1 : 0);
    across.addScaledVector(up, -across.dot(up)).normalize();
    const along = new THREE.Vector3().crossVectors(up, across);
    const origin = new THREE.Vector3(...scene.middle);
    origin.addScaledVector(up, scene.floor - origin.dot(up));
    this.uniforms = {
      origin: { value: origin },
      across: { value: across },
      along: { value: along },
      cell: { value: this.cell },
      reach: { value: scene.radius * 5 },
      ink: { value: new THREE.Vector3(1, 1, 1) },
    };
    const quad = new THREE.BufferGeometry();
    quad.setAttribute(
      "position",
      new THREE.BufferAttribute(new Float32Array([-1, -1, 0, 1, -1, 0, 1, 1, 0, -1, 1, 0]), 3),
    );
    quad.setIndex([0, 1, 2, 0, 2, 3]);
    const grid = new THREE.Mesh(
      quad,
      rawMaterial(GRID_VERTEX, GRID_FRAGMENT, this.uniforms, {
        transparent: true,
        depthWrite: false,
      }),
    );
    grid.frustumCulled = false;
    this.axes = new Segments(2.2);
    const length = roundLength(scene.radius / 5);
    this.axes.set([
      { start: [0, 0, 0], end: [length, 0, 0], color: [0.94, 0.33, 0.36, 1] },
      { start: [0, 0, 0], end: [0, length, 0], color: [0.4, 0.8, 0.4, 1] },
      { start: [0, 0, 0], end: [0, 0, length], color: [0.35, 0.6, 1, 1] },
    ]);
    this.world = new THREE.Scene();
    this.world.add(grid, this.axes.mesh);
  }
}
