"""How far XLA optimises what tests compile, which is most of what they take.

Code that is optimised a little is right for programs that run for long. Code that is not optimised is
made a quarter sooner and runs a fifth as fast: right for a training of a few steps.
"""

from importlib import metadata

# Made in a fifth of the time: XLA chooses how to write code for programs that run for long. And
# programs stay on one core, since the other has tests of its own.
LITTLE_OPTIMIZED = (
    "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_parallel_codegen_split_count=1 --xla_cpu_multi_thread_eigen=false"
)
"""For XLA_FLAGS, in the tests and the processes that they start."""
if tuple(map(int, metadata.version("jaxlib").split(".")[:2])) < (0, 11):  # else the only way
    LITTLE_OPTIMIZED += " --xla_cpu_use_fusion_emitters=false"

NOT_OPTIMIZED = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
"""Variables of processes that mostly train."""
