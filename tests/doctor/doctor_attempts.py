"""Attempts for the tests, which are run as a module."""

import json
import os
import sys
import time

from i3dzoo.errors import DeviceError

name = sys.argv[1]
if name == "fails":
    raise ValueError("/home/me/secret.txt is wrong")
if name == "no_device":
    raise DeviceError("there is no GPU")
if name == "dies":
    os.abort()
if name == "hangs":
    time.sleep(60)
torch = {"version": "2", "cuda": None, "cudnn": None, "devices": ["cpu"], "gpus": [], "threads": 1}
print("noise")
print(json.dumps({"detail": "did it", **(torch if name == "torch" else {})}))
