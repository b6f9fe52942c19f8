# The one Dockerfile; `biom3d images build` fills it from images.yaml. Plain features only: the builder of Docker
# 20.10 and Podman's understand every line. It is built in two goes, cut at "part two", so that the layer with the
# dependencies (1 GB and more) stays the same one, on every machine, when only our code changes.
ARG BASE
ARG DEPENDENCIES=dependencies

# ---- part one: the dependencies, from a folder of wheels whose hashes were checked. No network, no certificates.
FROM ${BASE} AS builder
ARG BUILD
LABEL biom3d.builder="${BUILD}"
COPY install.sh pip.whl /wheels/installer/
COPY dependencies/ /wheels/
ARG SOURCE_DATE_EPOCH
# The .pth line makes the packages of part two importable.
RUN python3 -m venv --without-pip /opt/venv \
    && echo /opt/biom3d >"$(echo /opt/venv/lib/python3.*/site-packages)/biom3d-image.pth" \
    && /wheels/installer/install.sh /opt/venv

# Copied as part of a tree, so that /opt keeps its age as well and the layer comes out the same bit for bit.
FROM ${BASE} AS dependencies
COPY --from=builder /layer/ /

# ---- part two: our code (or an adapter), and what a container of it does.
FROM ${DEPENDENCIES} AS package
ARG BUILD
LABEL biom3d.builder="${BUILD}"
COPY install.sh pip.whl /wheels/installer/
COPY packages /wheels/
COPY entrypoint.sh /opt/biom3d/entrypoint.sh
ARG SOURCE_DATE_EPOCH
RUN /wheels/installer/install.sh /opt/biom3d --target /opt/biom3d

FROM ${DEPENDENCIES} AS image
COPY --from=package /layer/ /
# No HOME and no account are needed: any uid:gid works, also with a read-only root file system.
# PYTHONSAFEPATH: a folder `biom3d` in the mounted working folder never stands in for the image's own.
ENV PATH=/opt/venv/bin:/opt/biom3d/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONSAFEPATH=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["/opt/biom3d/entrypoint.sh"]
# CMD takes no arguments of the build, so the entry point reads what a container does that is told nothing.
ARG COMMAND
ENV BIOM3D_COMMAND="${COMMAND}"
ARG TITLE
ARG SOURCE
ARG REVISION
ARG VERSION
ARG KEY
ARG BASE_NAME
ARG BASE_DIGEST
ARG WHEELS
ARG TORCH
ARG CUDA
ARG PYTHON
ARG DRIVER
LABEL org.opencontainers.image.title="${TITLE}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.base.name="${BASE_NAME}" \
      org.opencontainers.image.base.digest="${BASE_DIGEST}" \
      biom3d.key="${KEY}" \
      biom3d.wheels="${WHEELS}" \
      biom3d.torch="${TORCH}" \
      biom3d.cuda="${CUDA}" \
      biom3d.python="${PYTHON}" \
      biom3d.driver="${DRIVER}"
