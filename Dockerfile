# Images of i3dzoo, without weights: they are pulled into the volume /cache.
#
#   docker build --target cpu -t i3dzoo:cpu --build-arg TORCH_INDEX=ADDRESS .
#   docker build --target cuda -t i3dzoo:cuda .
#   docker run --rm -v i3dzoo:/cache -v "$PWD":/data i3dzoo:cpu predict clip.mp4 --model rgb_scratch
#   docker run --rm --gpus all --shm-size 8g -v i3dzoo:/cache -v "$PWD":/data i3dzoo:cuda doctor
#
# TORCH_INDEX is the index with PyTorch's builds for the CPU; without it, the image of the target cpu has
# the build for CUDA, which works on a CPU and is several GB larger.
ARG PYTHON_VERSION=3.12

FROM python:${PYTHON_VERSION}-slim AS wheel
WORKDIR /source
COPY constraints.txt .
RUN python -m pip --disable-pip-version-check install --quiet --no-cache-dir --constraint constraints.txt build hatchling
COPY pyproject.toml README.md LICENSE ./
COPY i3dzoo i3dzoo
COPY converters converters
COPY manifests manifests
RUN python -m build --no-isolation --wheel --outdir /wheel .

# bsdtar extracts the .rar files of HMDB51 and UCF101
FROM python:${PYTHON_VERSION}-slim AS base
RUN apt-get update && apt-get install -y --no-install-recommends libarchive-tools && rm -rf /var/lib/apt/lists/*
COPY constraints.txt docker/install /opt/i3dzoo/
COPY --from=wheel /wheel /opt/i3dzoo/wheel
ENV I3DZOO_CACHE=/cache HF_HOME=/cache/huggingface PYTHONUNBUFFERED=1
RUN useradd --create-home user && mkdir /cache /data && chown user /cache /data
VOLUME /cache
WORKDIR /data
ENTRYPOINT ["i3dzoo"]
CMD ["--help"]

FROM base AS cpu
ARG TORCH_INDEX=
RUN TORCH_INDEX=${TORCH_INDEX} sh /opt/i3dzoo/install /opt/i3dzoo/wheel /opt/i3dzoo/constraints.txt train,plot,onnx,flow,parquet
USER user

# The wheels of PyTorch bring CUDA and cuDNN, so the host needs only NVIDIA's driver and container toolkit.
# Triton compiles the launchers of its kernels with gcc.
FROM base AS cuda
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN sh /opt/i3dzoo/install /opt/i3dzoo/wheel /opt/i3dzoo/constraints.txt train,plot,onnx,flow,parquet
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER user
