#!/bin/sh
# FOLDER with Mesa's software Vulkan (lavapipe 25), on which LiteRT's GPU accelerator runs without a
# GPU. bookworm's own Mesa 22.3 lacks what it asks for. Nothing is installed outside the folder.
set -eu
folder=$(mkdir -p "$1" && cd "$1" && pwd)
. "$(dirname "$0")/debs.sh"
prepare_apt
trap 'rm -rf "$APT"' EXIT
unpack "$folder" bookworm-backports mesa-vulkan-drivers:amd64 libdrm2:amd64 libdrm-amdgpu1:amd64
unpack "$folder" bookworm libvulkan1:amd64 libllvm15:amd64 libllvm19:amd64 libwayland-client0:amd64 \
  libx11-xcb1:amd64 libxcb-dri3-0:amd64 libxcb-present0:amd64 libxcb-randr0:amd64 \
  libxcb-shm0:amd64 libxcb-sync1:amd64 libxcb-xfixes0:amd64 libxcb1:amd64 libx11-6:amd64 \
  libxau6:amd64 libxdmcp6:amd64 libbsd0:amd64 libmd0:amd64 libxshmfence1:amd64 libedit2:amd64 \
  libz3-4:amd64 libxml2:amd64 libelf1:amd64 libsensors5:amd64
libraries="$folder/usr/lib/x86_64-linux-gnu"
sed "s|\"library_path\": *\"[^\"]*\"|\"library_path\": \"$libraries/libvulkan_lvp.so\"|" \
  "$folder"/usr/share/vulkan/icd.d/lvp_icd*.json > "$folder/lavapipe.json"
missing=$(LD_LIBRARY_PATH="$libraries" ldd "$libraries/libvulkan_lvp.so" | grep "not found" || true)
[ -z "$missing" ] || { echo "lavapipe lacks: $missing" >&2; exit 1; }
