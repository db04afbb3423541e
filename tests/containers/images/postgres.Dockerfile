# Stands in for the official image of PostgreSQL, from Debian's packages: the same variables, folder and user.
ARG BASE
FROM ${BASE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends postgresql \
    && rm -rf /var/lib/apt/lists/*
ENV PATH=/usr/lib/postgresql/15/bin:$PATH
COPY --chmod=755 postgres.sh /usr/local/bin/
VOLUME /var/lib/postgresql/data
CMD ["postgres.sh"]
