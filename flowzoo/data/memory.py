"""How much can still be allocated, so that caches refuse before they fail."""

import gc
import os

import torch


def free_memory(device: torch.device) -> int:
    """Bytes free on a CUDA device, garbage collected before: the trainer of an earlier run, or of one that failed, is
    garbage in a circle. For any other device, which shares the machine's memory, bytes free there.
    """
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    if os.path.exists("/proc/meminfo"):
        with open("/proc/meminfo") as lines:
            fields = dict(line.split(":", 1) for line in lines)
        # In kB; what the kernel can give without swapping, page cache included.
        return int(fields["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def gib(size: int) -> str:
    """Bytes for people."""
    return f"{size / 2**30:.2f} GiB"
