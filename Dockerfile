# The service: ONNX models, OpenVINO, no TensorFlow. docker compose up, then http://localhost:8000/
FROM python:3.12-slim

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY fer_tf fer_tf
COPY models models
RUN pip install -e ".[serve]" && useradd --system --no-create-home --uid 10001 fer && mkdir data && chown fer data

USER 10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
ENTRYPOINT ["fer-tf", "serve", "--host", "0.0.0.0"]
