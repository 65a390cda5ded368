"""The demo fuses the shipped pairs with the base install; tests/test_documents.py runs it whole."""

import os
import re

from tcmoa_runtime import demo
from tcmoa_runtime.cli import run
from tcmoa_runtime.contact_sheet import MARGIN_PX
from tcmoa_runtime.images import read_frame

BLOCKED = {"torch", "onnx", "skimage", "scipy", "av", "aiohttp"}


def test_the_demo_needs_the_base_install_only(fresh_python, tmp_path):
    code = (
        f"import os\nos.chdir({os.fspath(tmp_path)!r})\n"
        "import socket\nsocket.socket.connect = None\n"
        "from tcmoa_runtime import demo\n"
        "from tcmoa_runtime.cli import demo as command, run\n"
        "demo.READY_NAMES = command.READY_NAMES = {'nano-mff': 'mff'}\n"
        "sys.exit(run(['demo', '--out', 'shown']))"
    )
    outcome = fresh_python(code, blocked=BLOCKED)
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert re.fullmatch(
        r"Fused 2 pairs with nano-mff in [\d.]+ s \((onnxruntime|openvino) \(CPU\)\)\.", lines[0]
    )
    assert lines[1:] == [
        "shown/contact_sheet.jpg: the sources, the fused image and the prompt of each pair",
        "shown/prompt_strip.jpg: what scale and shift of the prompt change",
        "shown/mff_chelsea_x.png, _y.png, _fused.png, _prompt.png, ...: the images",
        "",
        "Next, with images of your own in place of these:",
        "  tcmoa fuse nano-mff shown/mff_chelsea_x.png shown/mff_chelsea_y.png -o fused.png",
        "  tcmoa fuse nano-mff x/ y/ -o fused/  # two folders of equal names",
        "  tcmoa models",
    ]
    written = {path.name for path in (tmp_path / "shown").iterdir()}
    assert written == {
        "contact_sheet.jpg",
        "prompt_strip.jpg",
        *(
            f"mff_{name}_{kind}.png"
            for name in ("chelsea", "coffee")
            for kind in ("x", "y", "fused", "prompt")
        ),
    }
    assert read_frame(tmp_path / "shown" / "mff_chelsea_fused.png").shape == (300, 451, 3)
    strip = read_frame(tmp_path / "shown" / "prompt_strip.jpg")
    assert strip.shape[0] == demo.STRIP_PX + demo.LABEL_PX + MARGIN_PX


def test_a_file_in_place_of_the_folder_is_refused(tmp_path, capsys):
    (tmp_path / "out").write_text("")
    assert run(["demo", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"tcmoa: error: {tmp_path / 'out'}: a file; expected a folder. Choose another folder."
    )
