# One image for every process: `docker build -t crm-pipeline .`. The command says which one it is; see
# deploy/compose.yaml. What the lock files pin is what the tests ran with.
FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /venv
COPY requirements.lock ./
RUN /venv/bin/pip install --require-hashes --no-deps -r requirements.lock
COPY pyproject.toml LICENSE ./
COPY crm_pipeline ./crm_pipeline
RUN /venv/bin/pip install --no-build-isolation --no-deps .
# What a deployment needs beside the lock, in versions that go with it: "dagster-k8s" for a cluster.
ARG EXTRA_PACKAGES=""
RUN if [ -n "$EXTRA_PACKAGES" ]; then \
      /venv/bin/pip freeze --exclude crm-pipeline > locked.txt \
      && /venv/bin/pip install --constraint locked.txt $EXTRA_PACKAGES; \
    fi

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /app crm \
    && install --directory --owner crm --group crm /app /app/var
COPY --from=build /venv /venv
WORKDIR /app
COPY dagster.yaml workspace.yaml ./
COPY deploy/dagster.postgres.yaml deploy/workspace.yaml ./deploy/
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
USER 10001:10001
VOLUME /app/var
ENTRYPOINT ["crm-pipeline"]
CMD ["serve", "--host", "0.0.0.0"]
