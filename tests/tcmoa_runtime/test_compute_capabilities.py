"""GPUs by name: what people and drivers write."""

import pytest

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.gpu.compute_capabilities import target_of
from tcmoa_runtime.options.build import BuildOptions


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("RTX 4090", "sm89"),
        ("rtx4090", "sm89"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "sm89"),
        ("GeForce RTX 4060 Ti 16GB", "sm89"),
        ("RTX 4070 Ti SUPER", "sm89"),
        ("NVIDIA RTX 6000 Ada Generation", "sm89"),
        ("nvidia rtx a6000", "sm86"),
        ("Quadro RTX 6000", "sm75"),
        ("NVIDIA A100-SXM4-80GB", "sm80"),
        ("NVIDIA H100 80GB HBM3", "sm90"),
        ("H100 PCIe", "sm90"),
        ("L40S", "sm89"),
        ("Tesla T4", "sm75"),
        ("Jetson AGX Orin 64GB Developer Kit", "sm87"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "sm120"),
        ("NVIDIA GeForce RTX 5090", "sm120"),
    ],
)
def test_a_gpu_is_known_by_its_name(name, target):
    assert target_of(name) == target


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("RTX 9090", "RTX 5090, RTX 4090, RTX 3090, RTX 5090 D"),
        ("my card", "RTX 4090, RTX A6000, L4, Jetson AGX Orin"),
        ("", "RTX 4090, RTX A6000, L4, Jetson AGX Orin"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_ones(name, nearest):
    with pytest.raises(InputError) as caught:
        BuildOptions(gpu=(name,))
    assert str(caught.value) == (
        f"gpu: {name!r} is unknown; expected the name of an NVIDIA GPU, e.g. {nearest}. Give its compute capability "
        f"with targets, e.g. sm89: developer.nvidia.com/cuda-gpus lists them."
    )


def test_names_become_targets():
    assert BuildOptions(gpu=("RTX 4090", "RTX A6000", "RTX 4080")).targets == ("sm86", "sm89")
    assert BuildOptions(gpu=("RTX 4090",), targets=("sm89", "sm86")).targets == ("sm86", "sm89")


def test_names_and_targets_must_agree():
    with pytest.raises(InputError) as caught:
        BuildOptions(gpu=("RTX 4090",), targets=("sm86",))
    assert str(caught.value) == (
        "gpu: 'RTX 4090' is sm89, but the targets are sm86; expected the same GPUs. Give either gpu or targets."
    )
    with pytest.raises(InputError) as caught:
        BuildOptions(gpu=("RTX 4090",), flavor="tensorrt")
    assert str(caught.value) == (
        "gpu: RTX 4090; expected none with flavor tensorrt, which builds for the GPU of this machine. "
        "Build with flavor='rtx'."
    )
