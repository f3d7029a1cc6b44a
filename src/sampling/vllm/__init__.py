"""The engine `vllm`: answers from vLLM servers over HTTP."""
