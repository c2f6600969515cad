#!/bin/sh
# Builds user.c against the installed keepsock in each way that projects use, runs each program, and prints
# the number of programs. Usage: build.sh FOLDER, an empty folder for the programs.
set -eu
source=$(cd "$(dirname "$0")" && pwd)
cd "$1"
programs=0

try() {
    said=$("$@")
    test "$said" = "keepsock $(pkg-config --modversion keepsock)" || { echo "$1 printed: $said" >&2; exit 1; }
    programs=$((programs + 1))
}

# The flags are words.
# shellcheck disable=SC2046
compile() { # language compiler standard
    flags="-x $1 -std=$3 -Wall -Wextra -Wpedantic -Werror $source/user.c -x none"
    $2 $flags -o "$2-$3" $(pkg-config --cflags --libs keepsock)
    try "./$2-$3"
    $2 $flags -o "$2-$3-static" $(pkg-config --static --cflags --libs keepsock |
        sed 's/-lkeepsock/-Wl,-Bstatic -lkeepsock -Wl,-Bdynamic/')
    try "./$2-$3-static"
}

for compiler in gcc clang; do
    for standard in c99 c11 c17 c2x; do compile c $compiler $standard; done
done
for compiler in g++ clang++; do
    for standard in c++11 c++14 c++17 c++20; do compile c++ $compiler $standard; done
done

cmake -G Ninja -S "$source" -B cmake > /dev/null
cmake --build cmake > /dev/null
try cmake/user-shared
try cmake/user-static

meson setup meson "$source" > /dev/null
meson compile -C meson > /dev/null
try meson/user-shared
try meson/user-static

# The static programs run without the shared library.
! ldd gcc-c99-static | grep keepsock || exit 1
ldd gcc-c99 | grep -q libkeepsock.so.0
echo "$programs programs"
