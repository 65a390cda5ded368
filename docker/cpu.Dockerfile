# syntax=docker/dockerfile:1
# tcmoa for CPUs, with OpenVINO and video. In the checkout:
#
#   docker build -f docker/cpu.Dockerfile -t tcmoa:cpu .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" tcmoa:cpu fuse nano-vif x.png y.png -o fused.png

FROM python:3.13-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.13-slim-bookworm
# Extras of pyproject.toml. `export` needs PyTorch.
ARG EXTRAS=openvino,stream
# hadolint ignore=DL3013  # the wheel of this checkout; it states the versions that it needs
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    set -- /wheels/*.whl && pip install --no-cache-dir "$1[$EXTRAS]" && pip check \
    && useradd --create-home --uid 10001 tcmoa && install -d -o tcmoa /work
USER 10001
WORKDIR /work
ENTRYPOINT ["tcmoa"]
CMD ["--help"]
