"""Entry point of `bench.vllm_measuring`: PYTHONPATH=. TORCH_PYTHON bench/vllm_runtime.py PACKAGE.

It imports nothing else, because vLLM's engine core imports the main module before it starts, and it
cannot start where numba was imported already.
"""

if __name__ == "__main__":
    from bench.vllm_measuring import main

    main()
