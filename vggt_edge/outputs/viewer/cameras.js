// Camera frusta with their photographs.

const LINE_VERTEX = `
precision highp float;
uniform mat4 modelViewMatrix, projectionMatrix;
uniform vec2 resolution;
uniform float width;
in vec3 position; // x: 0 at the start, 1 at the end; y: -1 or 1, the side
in vec3 start, end;
in vec4 paint;
out vec4 tint;
void main() {
  vec4 a = projectionMatrix * modelViewMatrix * vec4(start, 1.0);
  vec4 b = projectionMatrix * modelViewMatrix * vec4(end, 1.0);
  float close = 1e-3 * max(abs(a.w), abs(b.w)); // cut off what is behind the eye
  if (a.w < close && b.w > close) a = mix(a, b, (close - a.w) / (b.w - a.w));
  if (b.w < close && a.w > close) b = mix(b, a, (close - b.w) / (a.w - b.w));
  vec2 along = (b.xy / b.w - a.xy / a.w) * resolution;
  vec2 across = vec2(-along.y, along.x) / max(length(along), 1e-6);
  gl_Position = position.x < 0.5 ? a : b;
  gl_Position.xy += across * position.y * width / resolution * gl_Position.w;
  tint = paint;
}`;

const LINE_FRAGMENT = `
precision highp float;
in vec4 tint;
out vec4 color;
void main() { color = tint; }`;

const PHOTO_VERTEX = `
precision highp float;
uniform mat4 modelViewMatrix, projectionMatrix;
in vec3 position;
in vec4 paint; // u, v, layer, opacity
out vec3 at;
out float opacity;
void main() {
  at = paint.xyz;
  opacity = paint.w;
  gl_Position = projectionMatrix * modelViewMatrix * vec4(position, 1.0);
}`;

const PHOTO_FRAGMENT = `
precision highp float;
precision highp sampler2DArray;
uniform sampler2DArray photos;
in vec3 at;
in float opacity;
out vec4 color;
void main() {
  vec3 rgb = texture(photos, at).rgb;
  color = vec4(gl_FrontFacing ? rgb : rgb * 0.45, opacity);
}`;

function rawMaterial(vertexShader, fragmentShader, uniforms, options) {
  return new THREE.RawShaderMaterial({
    glslVersion: THREE.GLSL3,
    vertexShader,
    fragmentShader,
    uniforms,
    side: THREE.DoubleSide,
    ...options,
  });
}

/** Line segments with a width in pixels; segments are {start, end, color: [r, g, b, a]}. */
class Segments {
  constructor(width, options) {
    this.uniforms = { resolution: { value: new THREE.Vector2(1, 1) }, width: { value: width } };
    this.mesh = new THREE.Mesh(
      new THREE.InstancedBufferGeometry(),
      rawMaterial(LINE_VERTEX, LINE_FRAGMENT, this.uniforms, { transparent: true, ...options }),
    );
    this.mesh.frustumCulled = false;
  }

  set(segments) {
    this.mesh.geometry.dispose();
    const geometry = new THREE.InstancedBufferGeometry();
    geometry.setAttribute(
      "position",
      new THREE.BufferAttribute(new Float32Array([0, -1, 0, 0, 1, 0, 1, -1, 0, 1, 1, 0]), 3),
    );
    geometry.setIndex([0, 1, 2, 2, 1, 3]);
    const gather = (key, size) => {
      const values = new Float32Array(segments.length * size);
      segments.forEach((segment, i) => values.set(segment[key], i * size));
      return new THREE.InstancedBufferAttribute(values, size);
    };
    geometry.setAttribute("start", gather("start", 3));
    geometry.setAttribute("end", gather("end", 3));
    geometry.setAttribute("paint", gather("color", 4));
    geometry.instanceCount = segments.length;
    this.mesh.geometry = geometry;
  }

  /** Give `count` segments from `first` on another color; only these go to the graphics card. */
  recolor(first, count, color) {
    const paint = this.mesh.geometry.getAttribute("paint");
    for (let i = first; i < first + count; i++) paint.array.set(color, 4 * i);
    paint.addUpdateRange(4 * first, 4 * count);
    paint.needsUpdate = true;
  }
}

function photoTexture(pixels, width, height, layers) {
  const texture = new THREE.DataArrayTexture(pixels, width, height, layers);
  texture.minFilter = THREE.LinearMipmapLinearFilter;
  texture.magFilter = THREE.LinearFilter;
  texture.generateMipmaps = true;
  texture.anisotropy = 4;
  texture.needsUpdate = true;
  return texture;
}

const FRUSTUM_SEGMENTS = 8;

class Frusta {
  constructor(scene, maxLayers) {
    this.cameras = scene.cameras;
    this.scale = scene.frustum;
    this.selected = this.hovered = this.inside = -1;
    this.overlay = 0;
    this.lensCamera = -1; // whose own photograph the lens has
    this.lensReady = Promise.resolve();
    this.visible = this.photographs = true;
    this.dark = true;
    for (const camera of this.cameras) {
      camera.worldFromCamera = new THREE.Matrix4().set(...camera.pose, 0, 0, 0, 1);
      camera.center = new THREE.Vector3().setFromMatrixPosition(camera.worldFromCamera);
      const [left, top, right, bottom] = camera.crop;
      camera.rays = [
        [left, top],
        [right, top],
        [right, bottom],
        [left, bottom],
      ].map(([u, v]) => {
        const y = (v - camera.cy) / camera.fy;
        return new THREE.Vector3((u - camera.cx - camera.skew * y) / camera.fx, y, 1);
      });
      camera.reach = Math.max(...camera.rays.map((ray) => ray.length()));
    }
    // Few large or many small photographs: 48 MB of texture at most.
    const first = this.cameras[0];
    const aspect = first ? (first.crop[3] - first.crop[1]) / (first.crop[2] - first.crop[0]) : 1;
    this.layers = Math.min(this.cameras.length, maxLayers);
    this.width = Math.max(
      16,
      Math.floor(Math.min(256, Math.sqrt(12e6 / Math.max(1, this.layers) / aspect))),
    );
    this.height = Math.max(16, Math.round(this.width * aspect));
    this.pixels = new Uint8Array(4 * this.width * this.height * Math.max(1, this.layers)).fill(128);
    this.texture = photoTexture(this.pixels, this.width, this.height, Math.max(1, this.layers));

    this.lines = new Segments(1.4);
    this.outline = new Segments(1.4, { depthTest: false });
    const uniforms = { photos: { value: this.texture } };
    this.pictures = new THREE.Mesh(
      new THREE.BufferGeometry(),
      rawMaterial(PHOTO_VERTEX, PHOTO_FRAGMENT, uniforms, { transparent: true }),
    );
    this.lens = new THREE.Mesh(
      new THREE.BufferGeometry(),
      rawMaterial(
        PHOTO_VERTEX,
        PHOTO_FRAGMENT,
        { photos: { value: this.texture } },
        { transparent: true, depthTest: false },
      ),
    );
    this.pictures.frustumCulled = this.lens.frustumCulled = false;
    this.world = new THREE.Scene();
    this.world.add(this.pictures, this.lines.mesh, this.lens, this.outline.mesh);
    this.update();
  }

  /** Decode the photographs into the texture; `refresh` is called whenever some have arrived. */
  async load(refresh) {
    const canvas = document.createElement("canvas");
    canvas.width = this.width;
    canvas.height = this.height;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    for (let i = 0; i < this.layers; i++) {
      const bitmap = await createImageBitmap(this.cameras[i].photo);
      context.drawImage(bitmap, 0, 0, this.width, this.height);
      bitmap.close();
      this.pixels.set(
        context.getImageData(0, 0, this.width, this.height).data,
        4 * i * this.width * this.height,
      );
      if (i % 64 === 63 || i === this.layers - 1) {
        this.texture.needsUpdate = true;
        refresh();
      }
    }
  }

  /** Look through camera `i`, or none if -1, at its photograph in full; `refresh` when it is there. */
  lookThrough(i, refresh) {
    this.inside = i;
    if (i >= 0 && i !== this.lensCamera) this.lensReady = this.loadLens(i, refresh);
  }

  async loadLens(i, refresh) {
    const bitmap = await createImageBitmap(this.cameras[i].photo);
    if (i === this.inside) {
      const { width, height } = bitmap;
      const canvas = document.createElement("canvas");
      canvas.width = width;
      canvas.height = height;
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(bitmap, 0, 0);
      const pixels = new Uint8Array(context.getImageData(0, 0, width, height).data);
      const { photos } = this.lens.material.uniforms;
      if (photos.value !== this.texture) photos.value.dispose();
      photos.value = photoTexture(pixels, width, height, 1);
      this.lensCamera = i;
      this.update();
      refresh();
    }
    bitmap.close();
  }

  corners(camera, depth = this.scale) {
    return camera.rays.map((ray) =>
      ray.clone().multiplyScalar(depth).applyMatrix4(camera.worldFromCamera),
    );
  }

  /** The four sides of the image plane. */
  edges(camera, color) {
    const corners = this.corners(camera).map((corner) => corner.toArray());
    return corners.map((start, k) => ({ start, end: corners[(k + 1) % 4], color }));
  }

  /** One quad a chosen camera, of its layer of the texture. */
  quads(chosen, opacity, layerOf) {
    const positions = [];
    const paint = [];
    const index = [];
    for (const i of chosen) {
      const base = positions.length / 3;
      this.corners(this.cameras[i]).forEach((corner, k) => {
        positions.push(corner.x, corner.y, corner.z);
        paint.push(k === 1 || k === 2 ? 1 : 0, k >= 2 ? 1 : 0, layerOf(i), opacity);
      });
      index.push(base, base + 2, base + 1, base, base + 3, base + 2);
    }
    const geometry = new THREE.BufferGeometry();
    geometry.setAttribute("position", new THREE.BufferAttribute(new Float32Array(positions), 3));
    geometry.setAttribute("paint", new THREE.BufferAttribute(new Float32Array(paint), 4));
    geometry.setIndex(index);
    return geometry;
  }

  /** From inside a camera the other frusta only hide what it saw. */
  get shown() {
    return this.visible && this.inside < 0;
  }

  get accent() {
    return this.dark ? [0.39, 0.7, 1, 1] : [0.04, 0.45, 0.87, 1];
  }

  colorOf(i) {
    if (i === this.selected || i === this.hovered) return this.accent;
    return this.dark ? [0.82, 0.86, 0.93, 0.6] : [0.2, 0.24, 0.3, 0.65];
  }

  /** Mark the camera under the pointer, -1 for none: what thousands of cameras can bear. */
  hover(i) {
    const before = this.hovered;
    this.hovered = i;
    if (!this.shown) return;
    for (const k of [before, i])
      if (k >= 0) this.lines.recolor(FRUSTUM_SEGMENTS * k, FRUSTUM_SEGMENTS, this.colorOf(k));
  }

  /** Rebuild lines and pictures from the state. */
  update() {
    const { accent } = this;
    const shown = this.shown ? this.cameras.map((_, i) => i) : [];
    const segments = [];
    for (const i of shown) {
      const camera = this.cameras[i];
      const color = this.colorOf(i);
      const apex = camera.center.toArray();
      for (const edge of this.edges(camera, color))
        segments.push(edge, { start: apex, end: edge.start, color });
    }
    this.lines.set(segments);
    this.outline.set(
      this.inside < 0 ? [] : this.edges(this.cameras[this.inside], [...accent.slice(0, 3), 0.7]),
    );
    this.pictures.geometry.dispose();
    this.pictures.geometry = this.quads(
      this.photographs ? shown.filter((i) => i < this.layers) : [],
      1,
      (i) => i,
    );
    this.lens.geometry.dispose();
    const through = this.inside >= 0 && this.inside === this.lensCamera && this.overlay > 0;
    this.lens.geometry = this.quads(through ? [this.inside] : [], this.overlay, () => 0);
  }

  /** The camera whose frustum is under (x, y), in pixels from the top left, or -1. */
  pick(x, y, camera, width, height) {
    if (!this.shown) return -1;
    const ray = new THREE.Vector3((2 * x) / width - 1, 1 - (2 * y) / height, 0.5);
    ray.unproject(camera).sub(camera.position).normalize();
    const offset = new THREE.Vector3();
    const toScreen = (point) => {
      const p = point.clone().project(camera);
      return p.z > 1 ? null : [(p.x / 2 + 0.5) * width, (0.5 - p.y / 2) * height];
    };
    let best = -1;
    let bestDistance = Infinity;
    this.cameras.forEach((candidate, i) => {
      // No part of a frustum is further from its apex than this: most are nowhere near the ray.
      offset.copy(candidate.center).sub(camera.position);
      const reach = this.scale * candidate.reach;
      if (offset.lengthSq() - offset.dot(ray) ** 2 > reach ** 2) return;
      const outline = this.corners(candidate).map(toScreen);
      const apex = toScreen(candidate.center);
      if (!apex || outline.some((corner) => !corner)) return;
      const faces = [outline, ...outline.map((corner, k) => [apex, corner, outline[(k + 1) % 4]])];
      if (!faces.some((face) => insidePolygon(x, y, face))) return;
      const distance = candidate.center.distanceTo(camera.position);
      if (distance < bestDistance) [best, bestDistance] = [i, distance];
    });
    return best;
  }
}

function insidePolygon(x, y, polygon) {
  let inside = false;
  polygon.forEach(([ax, ay], i) => {
    const [bx, by] = polygon[(i + 1) % polygon.length];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
  });
  return inside;
}
