#!/bin/sh
# FOLDER with an ARM64 Python, ai-edge-litert and qemu-user 10: LiteRT's ARM kernels on any x86
# machine. bookworm's own qemu 7.2 crashes in them. Nothing is installed outside the folder.
set -eu
folder=$(mkdir -p "$1" && cd "$1" && pwd)
. "$(dirname "$0")/debs.sh"
prepare_apt
trap 'rm -rf "$APT"' EXIT
unpack "$folder/root" bookworm python3.11-minimal:arm64 libpython3.11-minimal:arm64 \
  libpython3.11-stdlib:arm64 libc6:arm64 libgcc-s1:arm64 libstdc++6:arm64 zlib1g:arm64 \
  libexpat1:arm64 libffi8:arm64 libbz2-1.0:arm64 liblzma5:arm64 libssl3:arm64 libuuid1:arm64 \
  libatomic1:arm64
unpack "$APT/qemu" bookworm-backports qemu-user:amd64
mkdir -p "$folder/bin"
cp "$APT/qemu/usr/bin/qemu-aarch64" "$folder/bin/qemu-aarch64"
"${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --no-deps \
  --only-binary=:all: --python-version 311 --implementation cp --abi cp311 --abi none \
  --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 \
  --platform manylinux_2_27_aarch64 --platform manylinux_2_28_aarch64 --platform any \
  --upgrade --target "$folder/packages" \
  ai-edge-litert==2.3.0 numpy==2.4.6 flatbuffers==25.12.19 backports.strenum==1.2.8 \
  ml_dtypes==0.6.0 typing_extensions==4.12.2
# A Python like any other, for the gate: $1/bin/python.
cat > "$folder/bin/python" <<END
#!/bin/sh
PYTHONPATH="$folder/packages" exec "$folder/bin/qemu-aarch64" -cpu "\${QEMU_CPU:-max}" \\
  -L "$folder/root" "$folder/root/usr/bin/python3.11" "\$@"
END
chmod +x "$folder/bin/python"
"$folder/bin/python" -c "import ai_edge_litert.interpreter, platform; assert platform.machine() == 'aarch64'"
