# Viscera in a container:
#   docker build -t viscera .                     for NVIDIA GPUs, and CPUs where there is none
#   docker build -t viscera:cpu --target cpu .    for CPUs, a small image
#   docker build -t viscera:gc --target grand-challenge .    for the platform: docs/grand-challenge.md
# Stages stand in this order so that the legacy builder, which builds all above its target, builds no CUDA for `cpu`.
ARG BASE_IMAGE=debian:12-slim

FROM ${BASE_IMAGE} AS python
# Debian's own Python: its security fixes come with the base image's.
# hadolint ignore=DL3008  # a Debian release fixes the versions, and keeps only the newest of each
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
 && find / -xdev -type f -perm /6000 -exec chmod a-s {} +

FROM python AS code
WORKDIR /workspace
COPY predict.sh LICENSE requirements/sbom.py requirements/model_card.py ./
COPY weights weights
COPY inference inference
# Nothing is written at run time (--read-only), so the bytecode is made here; unchecked, since nothing changes.
RUN python3 -m compileall -q --invalidation-mode unchecked-hash inference

FROM python AS runtime
# HOME, since an unknown uid has none; UTF8 for the names of scans, in any locale.
ENV PATH=/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONUTF8=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /workspace
# A command and no entry point: FLARE's own, /bin/bash -c "sh predict.sh", takes its place.
CMD ["sh", "predict.sh"]
LABEL org.opencontainers.image.title="Viscera" \
      org.opencontainers.image.description="Abdominal organs and tumours in CT. Research use only." \
      org.opencontainers.image.licenses="Apache-2.0 AND GPL-3.0-only AND LGPL-3.0-or-later" \
      org.opencontainers.image.vendor="The Viscera maintainers" \
      org.opencontainers.image.authors="The Viscera maintainers"

FROM python AS build
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends binutils python3-venv \
 && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements/slim.sh /slim.sh

# Packages before code: they change seldom and take long. pip and setuptools stay behind.
FROM build AS packages-cpu
COPY requirements.txt /requirements.txt
RUN python3 -m venv /venv \
 && /venv/bin/pip install --require-hashes --only-binary :all: -r /requirements.txt \
 && bash /slim.sh /venv/lib/python3.*/site-packages \
 && /venv/bin/pip uninstall -q -y setuptools pip \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /venv/lib

FROM runtime AS cpu
COPY --from=packages-cpu /venv /venv
COPY --from=code /workspace /workspace
RUN python3 -B sbom.py > sbom.json && rm sbom.py model_card.py

FROM cpu AS grand-challenge
# invoke: a server on port 4743, as the platform asks since 2026; exec: run once and end.
ARG API=invoke
# Of the phase: the relative path of its output socket, and "--socket SLUG" where a case has several images.
ARG OUTPUT=images/segmentation
ARG SOCKETS=
ENV API=${API} OUTPUT=${OUTPUT} SOCKETS=${SOCKETS}
LABEL org.grand-challenge.api-method="${API}"
USER 1000:1000
EXPOSE 4743
CMD ["sh", "-c", "exec python3 -m inference.doors.grand_challenge $API --output \"$OUTPUT\" $SOCKETS"]

FROM build AS packages-gpu
COPY requirements/gpu.txt /requirements.txt
RUN python3 -m venv /venv \
 && /venv/bin/pip install --require-hashes --only-binary :all: -r /requirements.txt \
 && bash /slim.sh /venv/lib/python3.*/site-packages \
 && /venv/bin/pip uninstall -q -y setuptools pip \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /venv/lib

FROM runtime AS gpu
# What the NVIDIA container runtime hands in: CUDA for computing, nvidia-smi for measuring.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=packages-gpu /venv /venv
COPY --from=code /workspace /workspace
RUN python3 -B sbom.py > sbom.json && rm sbom.py model_card.py
