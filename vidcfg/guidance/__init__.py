"""The guidance engine: the strength of each frame at each step, and the rules that apply it.

Everything here is numbers and tensors: no file, no YAML, no pipeline class. `surface`, `schedule`,
`frames` and `frame_map` need numpy alone.
"""
