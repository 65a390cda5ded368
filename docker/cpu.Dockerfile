# syntax=docker/dockerfile:1
# tcmoa for CPUs, with OpenVINO, video, the live page and the HTTP service. In the checkout:
#
#   docker build -f docker/cpu.Dockerfile -t tcmoa:cpu .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" tcmoa:cpu fuse nano-vif x.png y.png -o fused.png
#
# With Ray, for nodes of a cluster (bulk fusion, fleets, Ray Serve):
#
#   docker build -f docker/cpu.Dockerfile --build-arg EXTRAS=openvino,stream,ray -t tcmoa:ray .
#
# Python 3.12 as in the image for GPUs: the nodes of a Ray cluster need one version. To pin the base by its digest:
# --build-arg BASE=python@sha256:...
ARG BASE=python:3.12-slim-bookworm

# hadolint ignore=DL3006  # the tag is in BASE
FROM ${BASE} AS build
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

# hadolint ignore=DL3006  # the tag is in BASE
FROM ${BASE}
# Extras of pyproject.toml. `export` needs PyTorch.
ARG EXTRAS=openvino,stream,serve
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tcmoa" \
      org.opencontainers.image.description="Image fusion: images, video, a live page, an HTTP service and Ray, on CPUs" \
      org.opencontainers.image.source="https://github.com/tcmoa/tcmoa" \
      org.opencontainers.image.licenses="Apache-2.0 AND CC-BY-NC-4.0" \
      org.opencontainers.image.revision="${REVISION}"
# wget: KubeRay's probes of Ray's pods and its submission of jobs run it.
# hadolint ignore=DL3008,DL3013  # the distribution pins wget; the wheel of this checkout states the versions that it needs
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    apt-get update && apt-get install -y --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/* \
    && set -- /wheels/*.whl && pip install --no-cache-dir "$1[$EXTRAS]" && pip check \
    && useradd --create-home --uid 10001 tcmoa && install -d -o tcmoa /work
COPY docker/healthcheck.py /opt/tcmoa-healthcheck.py
# Ray compares versions of Python down to the patch by default.
ENV RAY_USAGE_STATS_ENABLED=0 RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL=minor
USER 10001
WORKDIR /work
# TCMOA_HEALTH_URL names what is asked, e.g. http://127.0.0.1:8000/v2/health/ready; without it nothing is.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "/opt/tcmoa-healthcheck.py"]
ENTRYPOINT ["tcmoa"]
CMD ["--help"]
