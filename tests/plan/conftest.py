"""What cannot be collected everywhere."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("torchrl") else ["torchrl_problem.py"]  # doctests are looked for in every module
