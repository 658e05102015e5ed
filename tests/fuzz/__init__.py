"""A fuzzing suite: damaged and hostile files of every kind that i3dzoo reads.

`python -m fuzz --count 20000 --jobs 2` runs it in `tests/`; `python -m fuzz --kind onnx --seed 17`
reproduces one mutant. A kind (`kinds.py`) is a valid, small input, how it is mutated, and the
command that reads it. A fork server (`server.py`) runs the command on each mutant in a process of
its own, with limits, and judges the result (`verdict.py`).
"""
