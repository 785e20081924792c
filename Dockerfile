ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
RUN python -m venv /opt/cds-service
COPY . .
# pip before 25.3 takes the build's pins from PIP_CONSTRAINT, later ones from PIP_BUILD_CONSTRAINT.
RUN PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
    /opt/cds-service/bin/pip install --no-cache-dir .

FROM ${BASE}
RUN useradd --system --uid 10001 --no-create-home cds-service \
    && install -d -o cds-service -m 700 /var/lib/cds-service
WORKDIR /var/lib/cds-service
COPY --from=build /opt/cds-service /opt/cds-service
ENV PATH=/opt/cds-service/bin:$PATH \
    PYTHONUNBUFFERED=1
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/livez', timeout=2)"]
ENTRYPOINT ["cds-service"]
# Refuses to start without trusted clients (docs/security.md); --open is loopback only and so of no use in
# a container. `check`, `evaluate` and `explain` need none.
CMD ["serve", "--host", "0.0.0.0"]
