"""Responses of a fake vLLM server: for each route, a status and what its JSON body contains."""

from __future__ import annotations

import argparse
import secrets
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tokenizers.decoders import DecodeStream

from .fake_vllm_errors import Response, error, internal_error, unknown_model, wrong_completion
from .fake_vllm_model import Answer, FakeModel

COMPLETIONS, RPC = "/v1/completions", "/collective_rpc"
RELOADED = Response(200, {"results": [None]})

Route = Callable[[dict[str, Any]], Response]


class Routes:
    """The routes of a server of one model.

    Args:
        options: `model`, `served_model_name` and `max_logprobs` of vLLM's command line.
        developer: whether the routes exist that vLLM has only with `VLLM_SERVER_DEV_MODE=1`.

    Attributes:
        broken: whether `reload_weights` has lost the weights. The next request of `/v1/completions` fails,
            and the server ends.
    """

    def __init__(self, model: FakeModel, options: argparse.Namespace, *, developer: bool) -> None:
        self.model, self.root = model, str(options.model)
        self.name, self.max_logprobs = options.served_model_name or self.root, options.max_logprobs
        self.broken = self._reloads_fail = False
        self.get: dict[str, Route] = {"/health": lambda _: Response(200, None), "/v1/models": self._models}
        self.post: dict[str, Route] = {
            COMPLETIONS: self._completions,
            "/tokenize": self._tokenize,
            "/detokenize": self._detokenize,
        }
        if developer:
            self.post[RPC] = self._collective_rpc
            self.post["/reset_prefix_cache"] = lambda _: Response(200, {"success": True})

    def _models(self, _: dict[str, Any]) -> Response:
        permission = {
            "id": f"modelperm-{secrets.token_hex(8)}",
            "object": "model_permission",
            "created": int(time.time()),
            "allow_create_engine": False,
            "allow_sampling": True,
            "allow_logprobs": True,
            "allow_search_indices": False,
            "allow_view": True,
            "allow_fine_tuning": False,
            "organization": "*",
            "group": None,
            "is_blocking": False,
        }
        card = {
            "id": self.name,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "vllm",
            "root": self.root,
            "parent": None,
            "max_model_len": self.model.max_model_len,
            "permission": [permission],
        }
        return Response(200, {"object": "list", "data": [card]})

    def _completions(self, body: dict[str, Any]) -> Response:
        model = self.model
        problem = unknown_model(body, self.name) or wrong_completion(
            body, model.vocab_size, model.max_model_len, max_logprobs=self.max_logprobs
        )
        if problem:
            return problem
        if self.broken:
            return internal_error(
                "EngineCore encountered an issue. See stack trace (above) for the root cause."
            )
        answers = model.answers(body)
        lengths = len(body["prompt"]), sum(len(answer.token_ids) for answer in answers)
        usage = {
            "prompt_tokens": lengths[0],
            "total_tokens": sum(lengths),
            "completion_tokens": lengths[1],
            "prompt_tokens_details": None,
            "completion_tokens_details": None,
        }
        content = {
            "id": f"cmpl-{secrets.token_hex(8)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": self.name,
            "choices": [self._choice(index, answer, body) for index, answer in enumerate(answers)],
            "service_tier": None,
            "system_fingerprint": "vllm-fake",
            "usage": usage,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }
        return Response(200, content)

    def _choice(self, index: int, answer: Answer, body: dict[str, Any]) -> dict[str, Any]:
        shown = answer.token_ids if answer.stop is None else answer.token_ids[:-1]
        with_ids = bool(body.get("return_token_ids"))
        return {
            "index": index,
            "text": self._text(body["prompt"], shown, skip=body.get("skip_special_tokens", True)),
            "logprobs": None if body.get("logprobs") is None else self._logprobs(answer),
            "finish_reason": "length" if answer.stop is None else "stop",
            "stop_reason": None if answer.stop == self.model.tokenizer.eos_token_id else answer.stop,
            "token_ids": answer.token_ids if with_ids else None,
            "prompt_logprobs": None,
            "prompt_token_ids": body["prompt"] if with_ids else None,
            "routed_experts": None,
        }

    def _text(self, prompt: list[int], ids: list[int], *, skip: bool) -> str:
        """The text of an answer as vLLM decodes it, token by token: unfinished characters are lost."""
        stream, text = DecodeStream(ids=prompt, skip_special_tokens=skip), []
        for token in ids:
            try:
                text.append(stream.step(self.model.tokenizer.backend_tokenizer, token) or "")
            except Exception:  # tokenizers raises no narrower one: the bytes so far are no valid text
                stream = DecodeStream(skip_special_tokens=skip)
                text.append(stream.step(self.model.tokenizer.backend_tokenizer, token) or "")
        return "".join(text)

    def _logprobs(self, answer: Answer) -> dict[str, Any]:
        tokens = [self.model.tokenizer.decode([token]) for token in answer.token_ids]
        return {
            "text_offset": [sum(map(len, tokens[:place])) for place in range(len(tokens))],
            "token_logprobs": answer.logprobs,
            "tokens": tokens,
            "top_logprobs": [{token: value} for token, value in zip(tokens, answer.logprobs, strict=True)],
        }

    def _tokenize(self, body: dict[str, Any]) -> Response:
        if problem := unknown_model(body, self.name):
            return problem
        special = body.get("add_special_tokens", True)
        tokens = self.model.tokenizer.encode(body["prompt"], add_special_tokens=special)
        most = self.model.max_model_len
        return Response(
            200, {"count": len(tokens), "max_model_len": most, "tokens": tokens, "token_strs": None}
        )

    def _detokenize(self, body: dict[str, Any]) -> Response:
        if problem := unknown_model(body, self.name):
            return problem
        return Response(200, {"prompt": self.model.tokenizer.decode(body["tokens"])})

    def _collective_rpc(self, body: dict[str, Any]) -> Response:
        """Reloads weights. A reload that fails has the effects that it has in vLLM 0.32.

        If the folder does not exist, the weights are lost. If its weights have other shapes, the old ones
        remain, and every later reload fails.
        """
        if "method" not in body:
            return error(HTTPStatus.BAD_REQUEST, "Missing 'method' in request body")
        if body["method"] != "reload_weights":
            return _failed_call(f"'CPUWorker' object has no attribute '{body['method']}'")
        try:
            self._reload(Path(body["kwargs"]["weights_path"]))
        except OSError as failure:
            self.broken = True
            return _failed_call(str(failure))
        except ValueError as failure:
            self._reloads_fail = True
            return _failed_call(str(failure))
        return RELOADED

    def _reload(self, folder: Path) -> None:
        if self._reloads_fail:
            raise ValueError("an earlier reload has failed")
        self.model.reload(folder)


def _failed_call(reason: str) -> Response:
    return internal_error(f"Call to collective_rpc method failed: Worker failed with error '{reason}'")
