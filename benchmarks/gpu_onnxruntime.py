"""Compare our ONNX models in onnxruntime's CUDA provider with PyTorch, on one GPU.

    python benchmarks/gpu_onnxruntime.py build/gpu WEIGHTS out.json

The folder holds the files of `gpu_export.py pixels` and `gpu_export.py models`. Times are with
input and output on the GPU. float32 convolutions use TF32, which is the provider's default.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch  # before onnxruntime: it brings the libraries of CUDA and cuDNN
from gpu_pytorch import differences

from i3dzoo.checkpoints.checkpoint import Checkpoint, read_checkpoint
from i3dzoo.engines.onnxruntime import OnnxEngine
from i3dzoo.onnx.model import build_model
from i3dzoo.onnx.options import ExportOptions
from i3dzoo.pretrained import build

CASES = (("fp32", 1), ("fp32", 8), ("fp16", 1), ("fp16", 8))


def expected_logits(checkpoint: Checkpoint, clips: Any) -> Any:
    """Return PyTorch's logits in float32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    network = build(checkpoint).cuda()
    with torch.inference_mode():
        return np.concatenate(
            [network(torch.from_numpy(c[None]).cuda()).cpu().numpy() for c in clips]
        )


def measure(engine: OnnxEngine, clips: Any, batch: int, runs: int) -> tuple[Any, list[float]]:
    """Return the logits of the clips, and the sorted milliseconds of a batch."""
    import onnxruntime

    logits = np.concatenate([engine.run({"input_rgb": clip[None]})["fc_pred"] for clip in clips])
    session = engine._session
    clip = np.repeat(clips[:1], batch, axis=0)
    binding = session.io_binding()
    on_gpu = onnxruntime.OrtValue.ortvalue_from_numpy(clip, "cuda", 0)
    binding.bind_ortvalue_input("input_rgb", on_gpu)
    binding.bind_output("fc_pred", "cuda")
    times = []
    for number in range(runs + 5):
        start = time.perf_counter()
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        if number >= 5:
            times.append(1e3 * (time.perf_counter() - start))
    return logits, sorted(times)


def main() -> None:
    """Measure all cases."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--runs", type=int, default=50)
    given = parser.parse_args()
    checkpoint = read_checkpoint(given.weights)
    clips = np.load(given.folder / "clips.npy").astype("f4") / np.float32(127.5) - np.float32(1)
    expected = expected_logits(checkpoint, clips)
    rows: list[dict[str, Any]] = []
    for precision, batch in CASES:
        options = ExportOptions(precision=precision)  # type: ignore[arg-type] # of CASES
        engine = OnnxEngine(build_model([checkpoint], options).SerializeToString())
        providers = engine._session.get_providers()
        if "CUDAExecutionProvider" not in providers:
            sys.exit(f"onnxruntime runs on {', '.join(providers)} only")
        logits, times = measure(engine, clips, batch, given.runs)
        rows.append(
            {
                "precision": precision,
                "batch": batch,
                "median_ms": times[len(times) // 2],
                "clips_per_second": 1e3 * batch / times[len(times) // 2],
                **differences(logits, expected),
                "same_top_1": bool((logits.argmax(1) == expected.argmax(1))[:-1].all()),  # no noise
            }
        )
        print(rows[-1], flush=True)
        given.output.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
