"""Export to ONNX."""

from i3dzoo.engines.onnxruntime import OnnxEngine
from i3dzoo.exporters.job import Export, ExportJob
from i3dzoo.exporters.parity import check_parity
from i3dzoo.onnx.model import build_model, to_float32

_BF16_REMARK = (
    "onnxruntime has no bfloat16 convolution, so the comparison ran this graph and its bfloat16 "
    "weights in float32"
)


def export_onnx(job: ExportJob) -> Export:
    """Write an ONNX model whose output in onnxruntime equals PyTorch's."""
    model = build_model(job.checkpoints, job.options)
    data = model.SerializeToString(deterministic=True)
    bf16 = job.options.precision == "bf16"
    runnable = to_float32(model).SerializeToString() if bf16 else data
    parity = check_parity(job, OnnxEngine(runnable, device=job.device).run, "onnxruntime")
    remarks = (_BF16_REMARK,) if bf16 else ()
    return job.write({job.path: data}, parity, len(model.graph.node), remarks)
