# One image for all programs: node, adapter, controller, CLI. The steps are those of the Makefile.
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /src
RUN python3 -m venv /uv && /uv/bin/pip install --no-cache-dir uv==0.13.9
COPY requirements/main.lock requirements/main.lock
RUN /uv/bin/uv venv /venv && /uv/bin/uv pip sync --python /venv/bin/python requirements/main.lock
COPY pyproject.toml README.md LICENSE ./
COPY mesh mesh
COPY router router
RUN /uv/bin/uv pip install --python /venv/bin/python --no-deps .

FROM python:3.11.14-slim-bookworm
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin wml
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8033 8034
ENTRYPOINT ["wml-serving"]
