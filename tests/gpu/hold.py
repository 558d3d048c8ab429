"""Holds so many MiB of the first visible card, by the driver's own library alone, and prints what it has done.

hold.py MIB: prints `held`; frees it at a line on stdin and prints `freed`; ends at the next.
"""

import ctypes
import sys

cuda = ctypes.CDLL("libcuda.so.1")


def call(name, *args):
    code = getattr(cuda, name)(*args)
    if code != 0:
        sys.exit(f"{name} answers {code}")


device, context, memory = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
call("cuInit", 0)
call("cuDeviceGet", ctypes.byref(device), 0)
call("cuCtxCreate_v2", ctypes.byref(context), 0, device)
call("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(int(sys.argv[1]) << 20))
print("held", flush=True)
sys.stdin.readline()
call("cuMemFree_v2", memory)
print("freed", flush=True)
sys.stdin.readline()
