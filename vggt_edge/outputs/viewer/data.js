// From the page's two data blocks to typed arrays.

function takeText(id) {
  const node = document.getElementById(id);
  const text = node.textContent;
  node.remove(); // tens of megabytes that nothing needs again
  return text;
}

function bytesFromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

/** Off the main thread where the browser can (all since 2023), else by fflate. */
async function inflate(bytes) {
  if (!window.DecompressionStream) return THREE.unzlibSync(bytes);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** A random order of 0..count-1, the same on every visit (Fisher and Yates, xorshift32). */
function shuffledOrder(count) {
  const order = new Uint32Array(count);
  let state = 0x9e3779b9;
  for (let i = 0; i < count; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    const j = Math.floor(((state >>> 0) / 4294967296) * (i + 1));
    order[i] = order[j];
    order[j] = i;
  }
  return order;
}

/**
 * Undo html.py's packing: per channel the differences of neighbours, 16-bit channels as a plane of
 * low and a plane of high bytes. The points come in raster order, which is what makes them small,
 * and leave shuffled, so that any prefix of them is a uniform sample of the cloud.
 *
 * Returns {codes: Uint16Array(4N) of x, y, z, view; paint: Uint8Array(4N) of r, g, b, rank}.
 */
function unpackPoints(bytes, count) {
  const order = shuffledOrder(count);
  const codes = new Uint16Array(4 * count);
  const paint = new Uint8Array(4 * count);
  for (let channel = 0; channel < 4; channel++) {
    const low = bytes.subarray(2 * channel * count);
    const high = bytes.subarray((2 * channel + 1) * count);
    for (let i = 0, value = 0; i < count; i++) {
      value = (value + low[i] + (high[i] << 8)) & 0xffff;
      codes[4 * order[i] + channel] = value;
    }
  }
  for (let channel = 0; channel < 4; channel++) {
    const plane = bytes.subarray((8 + channel) * count);
    for (let i = 0, value = 0; i < count; i++) {
      value = (value + plane[i]) & 0xff;
      paint[4 * order[i] + channel] = value;
    }
  }
  return { codes, paint };
}

/** Positions were contracted per axis (Barron et al. 2022): linear in the core box, 2 - 1/|t| beyond. */
function decodeAxis(code, range, center, half) {
  const c = (code / 65535) * 2 * range - range;
  const size = Math.abs(c);
  return center + half * (size <= 1 ? c : Math.sign(c) / (2 - size));
}

async function readScene() {
  const scene = JSON.parse(takeText("scene-data"));
  const packed = bytesFromBase64(takeText("point-data"));
  Object.assign(scene, unpackPoints(await inflate(packed), scene.count));

  const perRank = new Uint32Array(256);
  for (let i = 0; i < scene.count; i++) perRank[scene.paint[4 * i + 3]]++;
  scene.countFromRank = new Uint32Array(257); // how many points have at least this rank
  for (let rank = 255; rank >= 0; rank--) {
    scene.countFromRank[rank] = scene.countFromRank[rank + 1] + perRank[rank];
  }
  scene.positionOf = (i) =>
    new THREE.Vector3(
      ...[0, 1, 2].map((axis) =>
        decodeAxis(scene.codes[4 * i + axis], scene.range, scene.center[axis], scene.half[axis]),
      ),
    );
  for (const camera of scene.cameras) {
    const blob = new Blob([bytesFromBase64(camera.photo)], { type: "image/jpeg" });
    camera.photo = blob;
    camera.url = URL.createObjectURL(blob);
  }
  return scene;
}

function lengthText(value, units) {
  const text = Number(value.toPrecision(3)).toString();
  return units === "metres" ? `${text} m` : text;
}
