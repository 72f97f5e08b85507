# shellcheck shell=bash
# What the scripts of this folder share. It is sourced, from the top of the repository.

# Numbers and messages are the same everywhere.
export LC_ALL=C

# Programs of the administrator are not on everybody's path.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# The oldest Rust that builds the workspace: `rust-version` of Cargo.toml.
RUST_NEEDED=1.95

# The host of the scenario, and what is behind its uplink (RFC 5737 addresses, RFC 6761 names).
export UPLINK_HOST=203.0.113.2 UPLINK_ROUTER=203.0.113.1
export OUTSIDE_SERVER=198.51.100.10 OUTSIDE_NAME=server.example

if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
    BOLD=$'\e[1m' DIM=$'\e[2m' RED=$'\e[31m' GREEN=$'\e[32m' PLAIN=$'\e[0m'
else
    BOLD='' DIM='' RED='' GREEN='' PLAIN=''
fi

# A new part of what the script does.
heading() { printf '\n%s== %s%s\n' "$BOLD" "$*" "$PLAIN"; }

# Something that a person should know.
note() { printf '%s%s%s\n' "$DIM" "$*" "$PLAIN"; }

good() { printf '%s%s%s\n' "$GREEN" "$*" "$PLAIN"; }

bad() { printf '%s%s%s\n' "$RED" "$*" "$PLAIN" >&2; }

die() {
    bad "$(basename "$0"): $*"
    exit 1
}

# Shows a command as a person would type it, and runs it.
shown() {
    printf '\n%s$ %s%s\n' "$BOLD" "$*" "$PLAIN"
    "$@"
}

# need PACKAGE=PROGRAM …: installs the Debian packages whose programs are missing. Status 1, and
# what to do, if that is not possible.
need() {
    local pair missing=()
    for pair in "$@"; do
        type -P "${pair#*=}" >/dev/null || missing+=("${pair%%=*}")
    done
    ((${#missing[@]})) || return 0
    if ! type -P apt-get >/dev/null; then
        bad "missing: the packages ${missing[*]} (names as in Debian): install them"
        return 1
    fi
    if ((EUID != 0)); then
        bad "missing: run as root: apt-get install ${missing[*]}"
        return 1
    fi
    note "installing ${missing[*]}"
    local log
    log=$(mktemp)
    if ! {
        apt-get -q update &&
            DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends "${missing[@]}"
    } >"$log" 2>&1 </dev/null; then
        cat "$log" >&2
        rm -f "$log"
        bad "cannot install ${missing[*]}"
        return 1
    fi
    rm -f "$log"
}

# unpack PACKAGE …: unpacks Debian packages that are not installed, with those that they need, under
# target/unpacked. Installed, they would take over the machine's name service or firewall.
unpack() {
    local to cache package
    to=$(target_dir)/unpacked
    [[ ! -e $to/complete || $(cat "$to/complete") != "$*" ]] || return 0
    if ! type -P apt-get >/dev/null; then
        bad "no apt-get: the packages $* (names as in Debian) cannot be unpacked for the tests"
        return 1
    fi
    note "unpacking $*"
    rm -rf "$to"
    # As on every system today, /bin, /lib and /sbin are in /usr.
    mkdir -p "$to"/usr/{bin,lib,sbin} "$to/cache/partial"
    ln -s usr/bin usr/lib usr/sbin "$to"
    cache=$(realpath "$to/cache")
    local log download
    log=$(mktemp)
    download=(apt-get -qy install --download-only --no-install-recommends -o Debug::NoLocking=1
        -o Dir::Cache::archives="$cache" "$@")
    if ! "${download[@]}" &>"$log" && ! { apt-get -q update && "${download[@]}"; } &>"$log"; then
        cat "$log" >&2
        rm -f "$log"
        bad "cannot download $*"
        return 1
    fi
    rm -f "$log"
    for package in "$cache"/*.deb; do
        [[ ! -e $package ]] || dpkg-deb --fsys-tarfile "$package" |
            tar --extract --keep-directory-symlink --no-same-owner --directory "$to"
    done
    rm -r "$cache"
    echo "$*" >"$to/complete"
}

# Checks that the workspace can be built here.
need_cargo() {
    # Where rustup puts it; a shell that was open before does not know yet.
    type -P cargo >/dev/null || PATH="$PATH:${CARGO_HOME:-${HOME:-~}/.cargo}/bin"
    type -P cargo >/dev/null ||
        die "cargo is missing: install Rust $RUST_NEEDED or newer, with rustup for example"
    local version
    version=$(rustc --version | awk '{print $2}')
    [[ $(printf '%s\n' "$RUST_NEEDED" "$version" | sort -V | head -n 1) == "$RUST_NEEDED" ]] ||
        die "rustc is $version: vnet needs $RUST_NEEDED or newer"
    # rustc links with it.
    need gcc=cc libc6-dev=cc
}

# The folder that cargo builds into.
target_dir() {
    cargo metadata --format-version 1 --no-deps --locked |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/'
}

# Builds the release binaries, unless VNET_BIN_DIR names a folder that has them. Sets BIN.
build_release() {
    if [[ -n ${VNET_BIN_DIR:-} ]]; then
        BIN=$(realpath "$VNET_BIN_DIR")
        return
    fi
    need_cargo
    heading "Building"
    shown cargo build --release --locked --workspace
    # Another script reads it.
    # shellcheck disable=SC2034
    BIN=$(target_dir)/release
}

# Status 1, and the reason, where no guest can run.
need_devices() {
    local device
    for device in /dev/kvm /dev/net/tun; do
        [[ -e $device ]] || modprobe "$(basename "$device")" 2>/dev/null || true
        if [[ ! -e $device ]]; then
            case $device in
            /dev/kvm) bad "there is no /dev/kvm: turn on virtualisation in the firmware, or, in a" \
                "virtual machine, nested virtualisation in its host; then load kvm_intel or kvm_amd" ;;
            *) bad "there is no /dev/net/tun: load the kernel's module tun" ;;
            esac
            return 1
        fi
        if [[ ! -r $device || ! -w $device ]]; then
            bad "$device may not be used by $(id -un): run as root, or join the group of $device"
            return 1
        fi
    done
}

# wait_for_line TEXT SECONDS LOG <descriptor: reads lines, appending them to LOG, until one
# contains TEXT. Status 1 if none does in time or before the end.
wait_for_line() {
    local line deadline=$((SECONDS + $2))
    while ((SECONDS < deadline)) && IFS= read -r -t $((deadline - SECONDS)) line; do
        printf '%s\n' "$line" >>"$3"
        [[ $line != *"$1"* ]] || return 0
    done
    return 1
}
