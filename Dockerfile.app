# The gateway alone: no Triton, no ONNX Runtime.
FROM python:3.12-slim AS packages
COPY requirements/gateway.txt /tmp/gateway.txt
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes -r /tmp/gateway.txt

FROM python:3.12-slim
# The same user as Triton's, whose control key in the volume only it may read.
RUN useradd --create-home --uid 10001 gateway && mkdir /state && chown gateway /state
COPY --from=packages /venv /venv
# With the version.
COPY pyproject.toml /srv/pyproject.toml
COPY app /srv/app
WORKDIR /srv
USER 10001
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 GATEWAY_HOST=0.0.0.0 GATEWAY_DRAIN_DELAY_S=5 GATEWAY_DRAIN_TIMEOUT_S=10
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as u; u.build_opener(u.ProxyHandler({})).open(f\"http://127.0.0.1:{os.environ.get('GATEWAY_PORT', 8080)}/livez\", timeout=4)"]
CMD ["python", "-m", "app"]
