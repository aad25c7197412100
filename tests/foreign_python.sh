#!/bin/bash
# Makes foreign interpreters for the tests from Debian's packages: a 32-bit Python (i386), which runs in a chroot, and a
# big-endian one (s390x), which runs under qemu's user emulation.
#
#   tests/foreign_python.sh DIRECTORY [i386] [s390x]
#   EXECNET_C_FOREIGN_PYTHONS=DIRECTORY make test-python
#
# Needs apt and dpkg-deb, and root for the chroot. Nothing is installed on this system, and its package lists do not
# change: all files go into DIRECTORY, which may be removed afterwards. What DIRECTORY already has is not made again.
#
# DIRECTORY/i386/root and DIRECTORY/s390x/root hold usr/bin/python3, DIRECTORY/s390x/qemu the emulator.
set -eu

test $# -ge 1 || { sed -n '2,/^set/{/^#/!q;s/^# \?//p}' "$0"; exit 2; }
mkdir -p "$1"
top=$(cd "$1" && pwd)
shift
test $# -gt 0 || set -- i386 s390x

# download ARCH DIR PACKAGE...: these packages and all that they depend on, to DIR/apt/cache/archives/*.deb
download() {
    local arch=$1 apt=$2/apt
    shift 2
    mkdir -p "$apt"/lists/partial "$apt"/cache/archives/partial "$apt"/etc/sources.list.d
    touch "$apt"/status # nothing counts as installed, so that apt downloads all dependencies
    cp /etc/apt/sources.list "$apt"/etc/ 2>/dev/null || :
    cp -r /etc/apt/sources.list.d/. "$apt"/etc/sources.list.d/ 2>/dev/null || :
    local options=(
        -q -o Dir::State="$apt" -o Dir::State::lists="$apt"/lists -o Dir::State::status="$apt"/status
        -o Dir::Cache="$apt"/cache -o Dir::Etc::sourcelist="$apt"/etc/sources.list
        -o Dir::Etc::sourceparts="$apt"/etc/sources.list.d -o APT::Architecture="$arch" -o APT::Architectures="$arch"
        -o APT::Sandbox::User=root
    )
    # The update fails if a source has no packages for this architecture. Only the download below has to succeed.
    apt-get "${options[@]}" update >"$apt"/update.log 2>&1 || :
    apt-get "${options[@]}" install -y --download-only --no-install-recommends "$@" >"$apt"/download.log 2>&1 ||
        { cat "$apt"/update.log "$apt"/download.log >&2; exit 1; }
}

unpack() { # unpack DIR ROOT
    mkdir -p "$2"
    for package in "$1"/apt/cache/archives/*.deb; do
        dpkg-deb -x "$package" "$2"
    done
    rm -rf "$1"/apt
}

python_for() { # python_for ARCH: $top/ARCH/root with a Python
    local here=$top/$1
    download "$1" "$here" python3-minimal
    unpack "$here" "$here"/new
    local python
    python=$(cd "$here"/new/usr/bin && ls -d python3.* | head -n 1)
    ln -sfn "$python" "$here"/new/usr/bin/python3
    mv "$here"/new "$here"/root
}

for arch; do
    case $arch in
    i386)
        if [ ! -e "$top"/i386/root ]; then
            rm -rf "$top"/i386
            python_for i386
        fi
        root=$top/i386/root
        mkdir -p "$root"/dev "$root"/proc "$root"/tmp
        test -c "$root"/dev/null || mknod -m 666 "$root"/dev/null c 1 3
        chroot "$root" /usr/bin/python3 -c \
            'import sys; assert sys.maxsize == 2**31 - 1; print("i386: Python", sys.version)'
        ;;
    s390x)
        if [ ! -e "$top"/s390x/root ]; then
            rm -rf "$top"/s390x
            native=$(dpkg --print-architecture)
            download "$native" "$top"/s390x/emulator qemu-user-static
            (cd "$top"/s390x/emulator/apt/cache/archives && for package in *.deb; do
                case $package in qemu-user-static_*) ;; *) rm "$package" ;; esac
            done)
            unpack "$top"/s390x/emulator "$top"/s390x/emulator/root
            mv "$top"/s390x/emulator/root/usr/bin/qemu-s390x-static "$top"/s390x/qemu
            rm -rf "$top"/s390x/emulator
            python_for s390x
        fi
        "$top"/s390x/qemu -L "$top"/s390x/root "$top"/s390x/root/usr/bin/python3 -c \
            'import sys; assert sys.byteorder == "big"; print("s390x: Python", sys.version)'
        ;;
    *)
        echo "$arch: i386 and s390x are what this makes" >&2
        exit 2
        ;;
    esac
done
