# Any Debian with python3 (3.11 or newer) and python3-venv will do as base.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# A mirror of PyPI and the authorities to trust for it, where the house has its own.
ARG PIP_INDEX_URL
ARG PIP_CERT
WORKDIR /src
RUN python3 -m venv /opt/cds-service
COPY . .
# pip before 25.3 takes the build's pins from PIP_CONSTRAINT, later ones from PIP_BUILD_CONSTRAINT.
RUN PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
    /opt/cds-service/bin/pip install --no-cache-dir --disable-pip-version-check . \
    && /opt/cds-service/bin/pip uninstall --quiet --yes pip

FROM ${BASE}
RUN groupadd --system --gid 10001 cds-service \
    && useradd --system --uid 10001 --gid 10001 --no-create-home cds-service \
    && install -d -o cds-service -g cds-service -m 700 /var/lib/cds-service
COPY --from=build /opt/cds-service /opt/cds-service
# The one folder that is written to, besides /tmp: the store, where that is SQLite.
WORKDIR /var/lib/cds-service
ENV PATH=/opt/cds-service/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/livez', timeout=2)"]
ENTRYPOINT ["cds-service"]
# Refuses to start without trusted clients (docs/security.md); --open is loopback only and so of no use in
# a container. `check`, `evaluate` and `explain` need none.
CMD ["serve", "--host", "0.0.0.0"]
