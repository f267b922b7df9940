"""Which doctests are not collected: those of parts whose library is not installed."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("torch") else ["lstmx/torch"]
