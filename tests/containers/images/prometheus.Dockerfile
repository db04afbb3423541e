# Stands in for the official image of Prometheus, from Debian's package.
ARG BASE
FROM ${BASE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends prometheus wget \
    && rm -rf /var/lib/apt/lists/* \
    && install --directory --owner=nobody --group=nogroup /prometheus
USER nobody
ENTRYPOINT ["/usr/bin/prometheus"]
