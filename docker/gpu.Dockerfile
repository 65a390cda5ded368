# syntax=docker/dockerfile:1
# tcmoa with TensorRT, for NVIDIA GPUs whose driver is R580 or newer (CUDA 13). In the checkout:
#
#   docker build -f docker/gpu.Dockerfile -t tcmoa:gpu .
#   docker run --rm --gpus all tcmoa:gpu doctor
#
# For GeForce and RTX, TensorRT-RTX: docker build -f docker/gpu.Dockerfile --build-arg EXTRAS=rtx,stream,calibration -t tcmoa:rtx .
ARG BASE=nvcr.io/nvidia/cuda:13.0.1-base-ubuntu24.04

FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

# hadolint ignore=DL3006  # the tag is in BASE
FROM ${BASE}
# Extras of pyproject.toml; `tensorrt` and `rtx` bring the libraries of TensorRT, the base image none.
ARG EXTRAS=tensorrt,stream,calibration
# hadolint ignore=DL3008  # the release of the distribution pins Python
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/tcmoa
ENV PATH=/opt/tcmoa/bin:$PATH
# The driver is mounted by NVIDIA's container toolkit; `video` is for NVDEC.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
# hadolint ignore=DL3013  # the wheel of this checkout; it states the versions that it needs
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    set -- /wheels/*.whl && pip install --no-cache-dir "$1[$EXTRAS]" && pip check \
    && useradd --create-home --uid 10001 tcmoa && install -d -o tcmoa /work
USER 10001
WORKDIR /work
ENTRYPOINT ["tcmoa"]
CMD ["doctor"]
