# Viscera in a container:
#   docker build -t viscera .                     for NVIDIA GPUs, and CPUs where there is none
#   docker build -t viscera:cpu --target cpu .    for CPUs, a small image
#   docker build -t viscera:gc --target grand-challenge .    for the platform: docs/grand-challenge.md
#   docker build -t viscera:map --target map .    for MONAI Deploy: docs/monai-deploy.md
# The first two are containers of Kaapana and XNAT as well: docs/kaapana.md, docs/xnat.md.
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
COPY predict.sh LICENSE requirements/sbom.py requirements/model_card.py requirements/doors.py ./
COPY weights weights
COPY inference inference
# Nothing is written at run time (--read-only), so the bytecode is made here; unchecked, since nothing changes.
# What platforms read: Kaapana, MONAI Deploy.
RUN python3 -m compileall -q --invalidation-mode unchecked-hash inference \
 && python3 -B doors.py kaapana > /processing-container.json \
 && python3 -B doors.py map /etc/holoscan \
 && rm doors.py

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
# What XNAT reads, made by requirements/doors.py.
LABEL org.nrg.commands="[{\"name\":\"viscera\",\"label\":\"Viscera\",\"description\":\"Segment abdominal organs and tumours in CT scans. Research use only.\",\"version\":\"0.2.0\",\"schema-version\":\"1.0\",\"type\":\"docker\",\"working-directory\":\"/workspace\",\"command-line\":\"sh predict.sh #device# #engine# #plan# #step# #tta# #precision# #networks# #labels# #name_by# #format# #save_probabilities# #preview# #accept_intensities# #fix_orientation# #uneven# #anonymous# #on_error# #timeout# #workers# #threads# #max_memory# #no_sidecar# #hash_names#\",\"override-entrypoint\":false,\"mounts\":[{\"name\":\"in\",\"path\":\"/inputs\",\"writable\":false},{\"name\":\"out\",\"path\":\"/outputs\",\"writable\":true}],\"inputs\":[{\"name\":\"device\",\"description\":\"default: cuda if available\",\"required\":false,\"command-line-flag\":\"--device\",\"command-line-separator\":\"=\",\"default-value\":\"auto\",\"type\":\"select-one\",\"select-values\":[\"auto\",\"cpu\",\"cuda\"]},{\"name\":\"engine\",\"description\":\"what runs the networks\",\"required\":false,\"command-line-flag\":\"--engine\",\"command-line-separator\":\"=\",\"default-value\":\"auto\",\"type\":\"select-one\",\"select-values\":[\"auto\",\"openvino\",\"onnxruntime\",\"torch\"]},{\"name\":\"plan\",\"description\":\"which windows run (default: as on each card, else dense)\",\"required\":false,\"command-line-flag\":\"--plan\",\"command-line-separator\":\"=\",\"type\":\"select-one\",\"select-values\":[\"\",\"abdomen\",\"body\",\"organs\",\"crop\",\"dense\"]},{\"name\":\"step\",\"description\":\"distance between windows as a share of the patch (0.5, or tuned)\",\"required\":false,\"command-line-flag\":\"--step\",\"command-line-separator\":\"=\",\"type\":\"string\"},{\"name\":\"tta\",\"description\":\"average over mirrored windows, as nnU-Net does by default: 8 times slower for 3 axes\",\"required\":false,\"type\":\"boolean\",\"default-value\":\"false\",\"true-value\":\"--tta\",\"false-value\":\"\"},{\"name\":\"precision\",\"description\":\"the networks' arithmetic\",\"required\":false,\"command-line-flag\":\"--precision\",\"command-line-separator\":\"=\",\"default-value\":\"auto\",\"type\":\"select-one\",\"select-values\":[\"auto\",\"f32\",\"bf16\",\"f16\",\"int8\"]},{\"name\":\"networks\",\"description\":\"in increasing priority (default: organ,tumor, else all)\",\"required\":false,\"command-line-flag\":\"--networks\",\"command-line-separator\":\"=\",\"type\":\"string\"},{\"name\":\"labels\",\"description\":\"only these labels, such as liver,spleen (default: all)\",\"required\":false,\"command-line-flag\":\"--labels\",\"command-line-separator\":\"=\",\"type\":\"string\"},{\"name\":\"name_by\",\"description\":\"name DICOM cases by this tag, such as AccessionNumber\",\"required\":false,\"command-line-flag\":\"--name-by\",\"command-line-separator\":\"=\",\"default-value\":\"SeriesInstanceUID\",\"type\":\"string\"},{\"name\":\"format\",\"description\":\"any of nifti,seg.nrrd,mha,seg,labelmap,rtstruct,sr (nifti)\",\"required\":false,\"command-line-flag\":\"--format\",\"command-line-separator\":\"=\",\"default-value\":\"nifti,seg\",\"type\":\"string\"},{\"name\":\"save_probabilities\",\"description\":\"write the folder X.probabilities, with one file per label\",\"required\":false,\"type\":\"boolean\",\"default-value\":\"false\",\"true-value\":\"--save-probabilities\",\"false-value\":\"\"},{\"name\":\"preview\",\"description\":\"write pictures to X.preview, and index.html, a page of all cases\",\"required\":false,\"type\":\"boolean\",\"default-value\":\"false\",\"true-value\":\"--preview\",\"false-value\":\"\"},{\"name\":\"accept_intensities\",\"description\":\"segment scans that cannot be CT in HU, with a warning\",\"required\":false,\"type\":\"boolean\",\"default-value\":\"false\",\"true-value\":\"--accept-intensities\",\"false-value\":\"\"},{\"name\":\"fix_orientation\",\"description\":\"if a scan certainly does not lie as its header says, segment it as it lies\",\"required\":false,\"type\":\"boolean\",\"default-value\":\"false\",\"true-value\":\"--fix-orientation\",\"false-value\":\"\"},{\"name\":\"uneven\",\"description\":\"what to do if DICOM slices are missing or unevenly apart\",\"required\":false,\"command-line-flag\":\"--uneven\",\"command-line-separator\":\"=\",\"default-value\":\"refuse\",\"type\":\"select-one\",\"select-values\":[\"refuse\",\"resample\"]},{\"name\":\"anonymous\",\"description\":\"write DICOM without patient and study\",\"required\":false,\"type\":\"boolean\",\"default-value\":\"false\",\"true-value\":\"--anonymous\",\"false-value\":\"\"},{\"name\":\"on_error\",\"description\":\"a failed case leaves nothing, or an empty map\",\"required\":false,\"command-line-flag\":\"--on-error\",\"command-line-separator\":\"=\",\"default-value\":\"skip\",\"type\":\"select-one\",\"select-values\":[\"skip\",\"empty\"]},{\"name\":\"timeout\",\"description\":\"seconds without progress before a case fails (600)\",\"required\":false,\"command-line-flag\":\"--timeout\",\"command-line-separator\":\"=\",\"type\":\"string\"},{\"name\":\"workers\",\"description\":\"processes that segment at once and share threads and memory; auto: as many as are worthwhile (1)\",\"required\":false,\"command-line-flag\":\"--workers\",\"command-line-separator\":\"=\",\"type\":\"string\"},{\"name\":\"threads\",\"description\":\"processors to use (default: all that this process may)\",\"required\":false,\"command-line-flag\":\"--threads\",\"command-line-separator\":\"=\",\"type\":\"string\"},{\"name\":\"max_memory\",\"description\":\"limit such as 2G or 1500M: windows become smaller, or a scan is refused\",\"required\":false,\"command-line-flag\":\"--max-memory\",\"command-line-separator\":\"=\",\"type\":\"string\"},{\"name\":\"no_sidecar\",\"description\":\"write no X.json, summary.json, measurements.csv\",\"required\":false,\"type\":\"boolean\",\"default-value\":\"false\",\"true-value\":\"--no-sidecar\",\"false-value\":\"\"},{\"name\":\"hash_names\",\"description\":\"write file names as hashes in logs and records\",\"required\":false,\"type\":\"boolean\",\"default-value\":\"false\",\"true-value\":\"--hash-names\",\"false-value\":\"\"}],\"outputs\":[{\"name\":\"segmentations\",\"description\":\"Label maps and records\",\"required\":true,\"mount\":\"out\"}],\"xnat\":[{\"name\":\"viscera-scan\",\"label\":\"Segment this CT\",\"description\":\"Segments the DICOM of a CT scan\",\"contexts\":[\"xnat:ctScanData\"],\"external-inputs\":[{\"name\":\"scan\",\"type\":\"Scan\",\"required\":true,\"matcher\":\"'DICOM' in @.resources[*].label\"}],\"derived-inputs\":[{\"name\":\"scan-dicom\",\"type\":\"Resource\",\"required\":true,\"matcher\":\"@.label == 'DICOM'\",\"derived-from-wrapper-input\":\"scan\",\"provides-files-for-command-mount\":\"in\"}],\"output-handlers\":[{\"name\":\"to-scan\",\"accepts-command-output\":\"segmentations\",\"as-a-child-of\":\"scan\",\"type\":\"Resource\",\"label\":\"VISCERA\"}]}]}]"

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
COPY --from=code /processing-container.json /
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

FROM cpu AS map
# Of its specification: application, networks and documents have their places, and a version.
COPY --from=code /etc/holoscan /etc/holoscan
RUN mkdir -p /opt/holoscan/models /opt/holoscan/docs /var/holoscan/input /var/holoscan/output /var/holoscan/logs \
 && chmod 777 /var/holoscan/output /var/holoscan/logs \
 && ln -s /workspace /opt/holoscan/app \
 && ln -s /workspace/weights/* /opt/holoscan/models/ \
 && ln -s /workspace/LICENSE /workspace/weights/README.md /opt/holoscan/docs/ \
 && rm /opt/holoscan/models/*.md
ENV PYTHONPATH=/opt/holoscan/app
LABEL org.opencontainers.image.version="0.2.0"
USER 1000:1000
WORKDIR /var/holoscan
ENTRYPOINT ["python3", "-m", "inference.doors.monai_deploy"]
CMD []

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
COPY --from=code /processing-container.json /
RUN python3 -B sbom.py > sbom.json && rm sbom.py model_card.py
