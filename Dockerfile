# The gateway as an image: `serve` by default; `migrate`, `worker`, `doctor`, `keys` … as the command.
# No secret belongs in here: all settings come with the environment (docs/configuration.md). How to run it: deploy/.
# Two stages of one base, so that the virtual environment finds the same Python in both.

# By digest, where one is given: python:3.13-slim-bookworm@sha256:… (deploy/README.md).
ARG PYTHON_IMAGE=python:3.13-slim-bookworm
FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
# The build tool is pinned by its hash, like everything in the lock.
COPY .ci/build-requirements.txt .ci/
RUN python -m venv /build/tools \
    && /build/tools/bin/python -m pip install --no-cache-dir --require-hashes -r .ci/build-requirements.txt
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY .ci/locked.py .ci/
COPY migrations migrations
COPY pricing pricing
COPY gateway gateway
# Of the lock only what `serve` needs, traces included; neither the embedded servers nor the tests' tools. Wheels only.
RUN /build/tools/bin/python -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir dist /build \
    && /build/tools/bin/python .ci/locked.py dist/*.whl otel > requirements.txt \
    && python -m venv --without-pip /opt/gateway \
    && /build/tools/bin/python -m pip --python /opt/gateway/bin/python install --no-cache-dir --no-deps \
        --require-hashes --only-binary :all: -r requirements.txt \
    && /build/tools/bin/python -m pip --python /opt/gateway/bin/python check

FROM ${PYTHON_IMAGE}
# Nothing that installs or builds stays in what serves.
RUN python -m pip uninstall --yes --root-user-action ignore pip \
    && groupadd --gid 10001 gateway \
    && useradd --uid 10001 --gid gateway --no-create-home --home-dir /var/lib/gateway --shell /usr/sbin/nologin gateway \
    && install -d -o gateway -g gateway -m 0700 /var/lib/gateway
COPY --from=build /opt/gateway /opt/gateway
# What gateway_build_info says: --build-arg COMMIT="$(git rev-parse HEAD)".
ARG COMMIT=""
# All addresses of the container: who reaches them is decided by what is published. The admin address has no password.
ENV PATH=/opt/gateway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    GATEWAY_HOST=0.0.0.0 \
    GATEWAY_PORT=8080 \
    GATEWAY_ADMIN_HOST=0.0.0.0 \
    GATEWAY_ADMIN_PORT=8081 \
    GATEWAY_DATA_DIR=/var/lib/gateway \
    PAILFLOW_COMMIT=${COMMIT}
USER 10001:10001
WORKDIR /var/lib/gateway
# The journal: until a call is in PostgreSQL this is its only record, so it must outlive the container.
VOLUME ["/var/lib/gateway"]
EXPOSE 8080 8081
# Stops taking calls and lets those in flight finish; give it longer than they may take: --stop-timeout 660.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['GATEWAY_ADMIN_PORT'] + '/readyz', timeout=4)"]
ENTRYPOINT ["gateway"]
CMD ["serve"]
