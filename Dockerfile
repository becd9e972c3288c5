# docker build -t eva-onnx .                        for the CPU
# docker build -t eva-onnx:cuda --target cuda .     for NVIDIA GPUs; run it with --gpus all
# docker run --rm -v "$PWD:/data" eva-onnx init model.onnx --data calibration.jsonl

FROM rust:1.95-slim-bookworm AS wheel
RUN apt-get update \
    && apt-get install --no-install-recommends --yes g++ make pkg-config python3-pip python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /venv && /venv/bin/pip install --no-cache-dir 'maturin>=1.9,<2'
WORKDIR /src
COPY . .
RUN /venv/bin/maturin build --release --locked --out /dist

FROM python:3.12-slim-bookworm AS cuda
COPY --from=wheel /dist /dist
# The GPU build of ONNX Runtime takes the place of the one that the wheel asks for.
RUN pip install --no-cache-dir --no-deps /dist/*.whl \
    && pip install --no-cache-dir numpy 'onnxruntime-gpu[cuda,cudnn]>=1.23'
WORKDIR /data
ENTRYPOINT ["eva-onnx"]

FROM python:3.12-slim-bookworm AS cpu
COPY --from=wheel /dist /dist
RUN pip install --no-cache-dir /dist/*.whl
WORKDIR /data
ENTRYPOINT ["eva-onnx"]
