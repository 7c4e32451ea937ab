"""Functions with which tests start vLLM."""

from judge_service.settings import EngineSettings

ENGINE = EngineSettings(multiprocessing=False, gpu_memory_utilization=0.2)
"""In the process of the tests: nothing is forked after CUDA was touched, and each call of a test may have an event loop
of its own. An engine in a process of its own dies at the second loop. On a GPU several engines share its memory."""
