# The endpoint alone: no torch, no MLflow, no Polars. Bundles come in by a read-only volume, state lies in another.
#   docker build -t recsys-serving .
#   docker run --rm -p 127.0.0.1:3000:3000 -v "$PWD/runs/demo/bundle:/bundle:ro" -v recsys-live:/live recsys-serving
FROM python:3.11-slim

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONPATH=/app BENTOML_DO_NOT_TRACK=True OMP_NUM_THREADS=1

# requirements/serve.lock: what the packages that serving/ imports need, at the versions of the other locks, and nothing else.
COPY requirements/serve.lock /tmp/serve.lock
RUN pip install --no-cache-dir --no-deps -r /tmp/serve.lock && rm /tmp/serve.lock

RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin recsys && install -d -o recsys -g recsys -m 700 /live
COPY recsys /app/recsys
COPY serving /app/serving
WORKDIR /app
USER 10001:10001
VOLUME /live
EXPOSE 3000

HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
  CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:3000/readyz', timeout=2)"]

# 0.0.0.0 is inside the container; publish the port on 127.0.0.1 and put a reverse proxy with TLS before it (docs/security.md).
ENTRYPOINT ["python", "-m", "serving"]
CMD ["serve", "--bundle", "/bundle", "--live", "/live", "--host", "0.0.0.0", "--set", "keys=true"]
