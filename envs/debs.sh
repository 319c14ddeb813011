# Sourced: unpack Debian packages into a folder, without installing them or touching the system's
# package lists. unpack FOLDER RELEASE PACKAGE:ARCHITECTURE ...
APT=${APT:-$(mktemp -d)}

debian_apt() {
  apt-get -o Dir::Etc::sourcelist="$APT/sources.list" -o Dir::Etc::sourceparts=/nonexistent \
    -o Dir::State::lists="$APT/lists" -o Dir::Cache="$APT/cache" -o Dir::State::status=/dev/null \
    -o APT::Architectures::=amd64 -o APT::Architectures::=arm64 -o APT::Sandbox::User=root \
    -qq "$@"
}

prepare_apt() {
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
    { echo "this environment is made of Debian packages and needs apt-get and dpkg-deb" >&2; exit 1; }
  mkdir -p "$APT/lists/partial" "$APT/cache/archives/partial" "$APT/debs"
  keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  for suite in bookworm bookworm-backports; do
    echo "deb [signed-by=$keyring] http://deb.debian.org/debian $suite main"
  done > "$APT/sources.list"
  debian_apt update
}

unpack() {
  local folder="$1" release="$2"; shift 2
  rm -rf "$APT/debs"; mkdir -p "$APT/debs" "$folder"
  (cd "$APT/debs" && debian_apt download -t "$release" "$@")
  for deb in "$APT"/debs/*.deb; do dpkg-deb -x "$deb" "$folder"; done
}
