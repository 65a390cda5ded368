# syntax=docker/dockerfile:1
# tcmoa with TensorRT, for NVIDIA GPUs whose driver is R580 or newer (CUDA 13). In the checkout:
#
#   docker build -f docker/gpu.Dockerfile -t tcmoa:gpu .
#   docker run --rm --gpus all tcmoa:gpu doctor
#
# For GeForce and RTX, TensorRT-RTX: --build-arg EXTRAS=rtx,stream,serve,calibration -t tcmoa:rtx
# With Ray, for nodes of a cluster: --build-arg EXTRAS=tensorrt,stream,ray,calibration -t tcmoa:ray-gpu
ARG BASE=nvcr.io/nvidia/cuda:13.0.1-base-ubuntu24.04

FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

# hadolint ignore=DL3006  # the tag is in BASE
FROM ${BASE}
# Extras of pyproject.toml; `tensorrt` and `rtx` bring the libraries of TensorRT, the base image none.
ARG EXTRAS=tensorrt,stream,serve,calibration
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tcmoa" \
      org.opencontainers.image.description="Image fusion: images, video, a live page, an HTTP service and Ray, on NVIDIA GPUs" \
      org.opencontainers.image.source="https://github.com/tcmoa/tcmoa" \
      org.opencontainers.image.licenses="Apache-2.0 AND CC-BY-NC-4.0" \
      org.opencontainers.image.revision="${REVISION}"
# wget: KubeRay's probes of Ray's pods and its submission of jobs run it. KubeRay starts login shells, which set PATH anew.
# hadolint ignore=DL3008,SC2016  # the release of the distribution pins Python; the login shell expands PATH
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv wget \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/tcmoa \
    && echo 'PATH=/opt/tcmoa/bin:$PATH' >/etc/profile.d/tcmoa.sh
ENV PATH=/opt/tcmoa/bin:$PATH
# The driver is mounted by NVIDIA's container toolkit; `video` is for NVDEC.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
# hadolint ignore=DL3013  # the wheel of this checkout; it states the versions that it needs
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    set -- /wheels/*.whl && pip install --no-cache-dir "$1[$EXTRAS]" && pip check \
    && useradd --create-home --uid 10001 tcmoa && install -d -o tcmoa /work
COPY docker/healthcheck.py /opt/tcmoa-healthcheck.py
# Ray compares versions of Python down to the patch by default.
ENV RAY_USAGE_STATS_ENABLED=0 RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL=minor
USER 10001
WORKDIR /work
# TCMOA_HEALTH_URL names what is asked, e.g. http://127.0.0.1:8000/v2/health/ready; without it nothing is.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s CMD ["python", "/opt/tcmoa-healthcheck.py"]
ENTRYPOINT ["tcmoa"]
CMD ["doctor"]
