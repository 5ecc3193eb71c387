"""What PyTorch makes of this machine."""

from __future__ import annotations

import torch

from pipeline.errors import ConfigError


def torch_version() -> str:
    """ "2.13.0, for CPUs" or with the version of CUDA that it was built for."""
    return f"{torch.__version__}, {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'for CPUs'}"


def gpus() -> list[str]:
    """The names of the GPUs that PyTorch can use, each seen to multiply. Raises ConfigError, RuntimeError."""
    if torch.version.cuda is None:
        raise ConfigError(
            f"PyTorch {torch.__version__} is built for CPUs; install the same version from PyTorch's CUDA index, or "
            "take the CUDA image"
        )
    if not torch.cuda.is_available():
        raise ConfigError(
            f"PyTorch {torch.__version__} finds no GPU that it can use; look at `nvidia-smi`: the driver must be new "
            f"enough for CUDA {torch.version.cuda}, and a container needs --gpus all or --nv"
        )
    return [_tried(index) for index in range(torch.cuda.device_count())]


def _tried(index: int) -> str:
    device = torch.device("cuda", index)
    found = float((torch.ones(64, 64, device=device) @ torch.ones(64, 64, device=device)).sum())
    name = torch.cuda.get_device_name(device)
    if found != 64.0**3:
        raise ConfigError(f"cuda:{index} ({name}) multiplies wrongly ({found}, not {64**3}); tell the operators")
    return name
