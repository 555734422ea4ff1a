# Installs Debian packages, saying so; sourced by ./test and tests/install.

# as_root COMMAND...: runs it as root, by sudo if need be.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    echo "not root, and no sudo to become it: run this once as root: $*" >&2
    return 1
  fi
}

# install_packages NAME...: installs these packages with apt.
install_packages() {
  if ! command -v apt-get >/dev/null; then
    echo "This machine has no apt. Install what these Debian packages hold, then run ./test again: $*" >&2
    return 1
  fi
  echo "installing Debian packages: $*"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}
