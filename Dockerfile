# Image of the toolkit, in /opt/ea-kd, for GPU and CPU. The NVIDIA driver is the host's.
#
#   docker build -t ea-kd .
#   docker run --rm --gpus all --shm-size 8g -v "$PWD/parts:/parts" -v "$PWD/output:/opt/ea-kd/output" \
#       ea-kd python tools/train_net.py --config-file configs/COCO-Detection/EA-DKD-R18-R101.yaml ...
FROM python:3.12-slim

# torch.compile needs a compiler when a config asks for it.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/ea-kd
ENV PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore

# The layer of several GB stays while requirements/torch.txt does.
COPY requirements/torch.txt requirements/torch.txt
RUN python -m pip install -r requirements/torch.txt

COPY . .
RUN python tools/setup_environment.py fresh

CMD ["python", "tools/demo.py"]
