"""Install libtcmoa into a folder and use it as another project does, with the compiler's default standard.

    python check_package.py SOURCE_FOLDER BUILD_FOLDER BUNDLES

A C program and a C++ program are built with CMake's find_package and with pkg-config, and fuse a pair to the bytes of
the Python runtime. The installed GStreamer plugin, if it was built, is loaded and fuses. The folder is moved first.
Also checks that the library exports the functions of tcmoa.h and nothing else.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = """
cmake_minimum_required(VERSION 3.22)
project(consumer LANGUAGES C CXX)
find_package(tcmoa 0.1 REQUIRED)
add_executable(fuse_c {source}/examples/fuse_raw.c)
add_executable(fuse_cpp fuse.cpp)
foreach(_program fuse_c fuse_cpp)
  target_link_libraries(${{_program}} PRIVATE tcmoa::tcmoa)
endforeach()
"""
PROGRAM = """
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <tcmoa.hpp>
#include <vector>

using Bytes = std::vector<unsigned char>;

static Bytes read(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

int main(int, char **arguments) {
    tcmoa::Options options;
    options.fit = TCMOA_FIT_TILE;
    auto fuser = tcmoa::Fuser::open(arguments[1], options);
    if (!fuser) return std::puts(fuser.error().message.c_str()), 1;
    const auto info = fuser->info().value();
    const Bytes x = read(arguments[2]), y = read(arguments[3]);
    Bytes fused(x.size());
    const auto done = fuser->fuse(tcmoa::bgr(x, info.width, info.height), tcmoa::gray(y, info.width, info.height),
                                  tcmoa::bgr(fused, info.width, info.height));
    if (!done) return std::puts(done.error().message.c_str()), 1;
    std::ofstream(arguments[4], std::ios::binary)
        .write(reinterpret_cast<const char *>(fused.data()), static_cast<std::streamsize>(fused.size()));
    std::printf("fused %s with %s\\n", info.task, info.backend);
}
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


def check_c_program(program: Path, bundles: Path, folder: Path) -> None:
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


def check_cpp_program(program: Path, bundles: Path, folder: Path) -> None:
    """Check that the C++ program writes the result of the Python runtime, and reports a missing bundle."""
    reference = bundles / "vif-gray-reference"
    out = run(program, bundles / "vif-gray", reference / "x.raw", reference / "y.raw", folder / "out.bgr")
    assert out == "fused vif with openvino (CPU)\n", out
    written = (folder / "out.bgr").read_bytes()
    assert written == (reference / "fused.raw").read_bytes(), f"{program} writes another image"
    done = subprocess.run([program, "/nowhere", "x", "y", "z"], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done
    assert done.stdout.startswith("/nowhere: no such bundle"), done.stdout


def check_no_network(program: Path, bundles: Path, folder: Path) -> None:
    """Check that the C++ program opens no socket, where strace is installed."""
    if shutil.which("strace") is None:
        return
    calls = folder / "calls.txt"
    pair = (bundles / "vif-gray-reference" / name for name in ("x.raw", "y.raw"))
    traced = [program, bundles / "vif-gray", *pair, folder / "out.bgr"]
    run("strace", "-f", "-e", "trace=network", "-o", calls, *traced)
    found = [line for line in calls.read_text().splitlines() if "(" in line]
    assert not found, found


def check_plugin(plugin: Path, bundles: Path, folder: Path) -> None:
    """Check that the installed plugin finds the installed library, and that its element fuses."""
    assert "$ORIGIN/.." in run("readelf", "-d", plugin), (
        "the plugin must find libtcmoa.so beside its own folder"
    )
    environment = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    environment |= {"GST_PLUGIN_PATH": str(plugin.parent), "GST_REGISTRY": str(folder / "registry.bin")}
    description = run("gst-inspect-1.0", "tcmoafuse", env=environment)
    assert str(plugin) in description, description
    source = ["videotestsrc", "num-buffers=3", "!", "video/x-raw,format=RGB,width=150,height=90", "!"]
    out = folder / "fused.rgb"
    run(
        *("gst-launch-1.0", "tcmoafuse", "name=fuse", f"bundle={bundles / 'vif-small'}", "fit=tile", "!"),
        *("video/x-raw,format=RGB", "!", "filesink", f"location={out}"),
        *(*source, "fuse.sink_x", *source, "fuse.sink_y"),
        env=environment,
    )
    assert out.stat().st_size == 3 * 90 * 452, out.stat()  # rows of 450 bytes are padded to a multiple of 4


def check_missing_openvino(source: Path, folder: Path) -> None:
    """Check that configuring stops where OpenVINO is missing, and says what to do."""
    options = [f"-DTCMOA_{name}=OFF" for name in ("BUILD_TESTS", "BUILD_EXAMPLES", "GSTREAMER")]
    command = ["cmake", "-S", source, "-B", folder / "none", "-DTCMOA_PYTHON=/nowhere/python", *options]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    message = " ".join(done.stderr.split())
    assert done.returncode == 1, done
    assert (
        "neither by CMake nor in the package openvino of /nowhere/python. Run `pip install openvino`"
        in message
    )
    assert "or build without this backend (-DTCMOA_OPENVINO=OFF)." in message, message


def main() -> None:
    """Run all checks; a failed one exits with its message."""
    source, build, bundles = (Path(a).resolve() for a in sys.argv[1:])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run("cmake", "--install", build, "--prefix", folder / "installed")
        prefix = (folder / "installed").rename(folder / "prefix")  # it can be moved
        library = next(prefix.rglob("libtcmoa.so"))
        check_symbols(library, prefix / "include" / "tcmoa.h")
        licenses = [path.read_text() for path in prefix.rglob("LICENSE")]
        assert licenses == [(source.parents[1] / "LICENSE").read_text()], "the license must be installed"

        (folder / "CMakeLists.txt").write_text(PROJECT.format(source=source))
        (folder / "fuse.cpp").write_text(PROGRAM)
        run("cmake", "-S", folder, "-B", folder / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
        run("cmake", "--build", folder / "build")
        check_c_program(folder / "build" / "fuse_c", bundles, folder)
        check_cpp_program(folder / "build" / "fuse_cpp", bundles, folder)

        environment = os.environ | {"PKG_CONFIG_PATH": str(library.parent / "pkgconfig")}
        flags = run("pkg-config", "--cflags", "--libs", "tcmoa", env=environment).split()
        flags.append(f"-Wl,-rpath,{library.parent}")
        run("cc", source / "examples" / "fuse_raw.c", "-o", folder / "fuse_c", *flags)
        run("c++", folder / "fuse.cpp", "-o", folder / "fuse_cpp", *flags)
        check_c_program(folder / "fuse_c", bundles, folder)
        check_cpp_program(folder / "fuse_cpp", bundles, folder)
        check_no_network(folder / "fuse_cpp", bundles, folder)
        check_missing_openvino(source, folder)
        for plugin in prefix.rglob("libgsttcmoa.so"):
            check_plugin(plugin, bundles, folder)
    print("installed, moved, and used with CMake, pkg-config and GStreamer")


if __name__ == "__main__":
    main()
