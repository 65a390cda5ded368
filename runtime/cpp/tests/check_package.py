"""Install libtcmoa into a folder and use it from another project: with CMake's find_package, with pkg-config, and in C.

    python check_package.py SOURCE_FOLDER BUILD_FOLDER BUNDLES

Also checks that the library exports the functions of tcmoa.h and nothing else.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = """
cmake_minimum_required(VERSION 3.22)
project(user LANGUAGES C CXX)
set(CMAKE_CXX_STANDARD 20)
find_package(tcmoa 0.1 REQUIRED)
add_executable(with_cmake {source}/examples/fuse_raw.c)
target_link_libraries(with_cmake PRIVATE tcmoa::tcmoa)
add_executable(wrapper main.cpp)
target_link_libraries(wrapper PRIVATE tcmoa::tcmoa)
"""
WRAPPER = """
#include <tcmoa.hpp>
#include <cstdio>
int main() { std::puts(tcmoa::Fuser::open("/nowhere").error().message.c_str()); }
"""


def run(*command: object, **options: object) -> str:
    """Run a command that must succeed and return its standard output."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, **options)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\nexit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def check_symbols(library: Path, header: Path) -> None:
    """Check that the library exports exactly the functions that the header declares."""
    exported = {
        line.split()[-1].split("@")[0] for line in run("nm", "-D", "--defined-only", library).splitlines()
    }
    declared = set(re.findall(r"^TCMOA_API .*?(tcmoa_\w+)\(", header.read_text(), re.MULTILINE))
    assert len(declared) > 15, declared
    assert exported - {"TCMOA_0"} == declared, exported ^ declared
    assert "libtcmoa.so.0" in run("readelf", "-d", library), "the SONAME must contain the major version"


def check_program(program: Path, bundles: Path, folder: Path) -> None:
    """Check that the C example writes the result of the Python runtime for this pair."""
    reference = bundles / "vif-gray-reference"
    # The bundle is BGR and the example's files are RGB.
    swapped = bytearray((reference / "x.raw").read_bytes())
    swapped[0::3], swapped[2::3] = swapped[2::3], swapped[0::3]
    (folder / "x.rgb").write_bytes(swapped)
    out = run(program, bundles / "vif-gray", folder / "x.rgb", reference / "y.raw", folder / "out.rgb")
    assert out == "fused vif: visible + infrared with openvino (CPU)\n", out
    fused = bytearray((folder / "out.rgb").read_bytes())
    fused[0::3], fused[2::3] = fused[2::3], fused[0::3]
    assert fused == (reference / "fused.raw").read_bytes(), f"{program} writes another image"


def main() -> None:
    """Run all checks; a failed one exits with its message."""
    source, build, bundles = (Path(a).resolve() for a in sys.argv[1:])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prefix = folder / "prefix"
        run("cmake", "--install", build, "--prefix", prefix)
        library = next(prefix.rglob("libtcmoa.so"))
        check_symbols(library, prefix / "include" / "tcmoa.h")

        (folder / "CMakeLists.txt").write_text(PROJECT.format(source=source))
        (folder / "main.cpp").write_text(WRAPPER)
        run("cmake", "-S", folder, "-B", folder / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
        run("cmake", "--build", folder / "build")
        check_program(folder / "build" / "with_cmake", bundles, folder)
        assert run(folder / "build" / "wrapper").startswith("/nowhere: no such bundle")

        environment = os.environ | {
            "PKG_CONFIG_PATH": str(library.parent / "pkgconfig"),
            "LD_LIBRARY_PATH": str(library.parent),
        }
        flags = run("pkg-config", "--cflags", "--libs", "tcmoa", env=environment).split()
        program = folder / "with_pkg_config"
        run("cc", "-std=c17", source / "examples" / "fuse_raw.c", "-o", program, *flags, env=environment)
        os.environ.update(environment)
        check_program(program, bundles, folder)
    print("installed, and used with CMake and pkg-config")


if __name__ == "__main__":
    main()
