"""The official openai library against a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import APIError, BadRequestError, InternalServerError, NotFoundError, OpenAI, RateLimitError

from tests.server.conftest import MODEL
from tests.server.live import LiveServer


@pytest.fixture
def client(live_server: LiveServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{live_server.url}/v1", api_key="unused", max_retries=0, timeout=20) as client:
        yield client


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_models(client: OpenAI) -> None:
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(NotFoundError) as caught:
        client.models.retrieve("gpt-5")
    assert caught.value.code == "model_not_found"


def test_an_answer_can_be_sent_back_as_a_turn(client: OpenAI) -> None:
    messages = ask("hello")
    first = client.chat.completions.create(model=MODEL, messages=messages, temperature=0, seed=1)  # type: ignore[arg-type]
    assert first.choices[0].message.content == "ppo heard: hello"
    assert first.usage
    assert first.usage.total_tokens == first.usage.prompt_tokens + first.usage.completion_tokens
    assert first._request_id
    again = [*messages, first.choices[0].message, {"role": "user", "content": "more"}]
    second = client.chat.completions.create(model=MODEL, messages=again)  # type: ignore[arg-type]
    assert second.choices[0].message.content == "ppo heard: more"


def test_streaming_with_usage(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL,
        messages=ask("hello"),  # type: ignore[arg-type]
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "ppo heard: hello"
    assert chunks[-1].choices == []
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 3


def test_the_streaming_helper_of_the_library(client: OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=ask("hello")) as stream:  # type: ignore[arg-type]
        completion = stream.get_final_completion()
    assert completion.choices[0].message.content == "ppo heard: hello"


def test_errors_are_the_librarys_own(client: OpenAI) -> None:
    create = client.chat.completions.create
    with pytest.raises(NotFoundError):
        create(model="gpt-5", messages=ask("x"))  # type: ignore[arg-type]
    with pytest.raises(BadRequestError) as caught:
        create(model=MODEL, messages=ask("word " * 300))  # type: ignore[arg-type]
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.request_id
    with pytest.raises(BadRequestError) as caught:
        create(model=MODEL, messages=ask("x"), temperature=3)  # type: ignore[arg-type]
    assert caught.value.param == "temperature"
    with pytest.raises(RateLimitError):
        create(model=MODEL, messages=ask("overload"))  # type: ignore[arg-type]
    with pytest.raises(InternalServerError):
        create(model=MODEL, messages=ask("fail"))  # type: ignore[arg-type]


def test_an_error_in_mid_stream_raises(client: OpenAI) -> None:
    stream = client.chat.completions.create(model=MODEL, messages=ask("fail"), stream=True)  # type: ignore[arg-type]
    with pytest.raises(APIError, match="server had an error"):
        list(stream)


def test_many_at_once(live_server: LiveServer) -> None:
    import asyncio

    from openai import AsyncOpenAI

    async def run() -> None:
        async with AsyncOpenAI(base_url=f"{live_server.url}/v1", api_key="unused") as client:

            async def one(number: int) -> str:
                answer = await client.chat.completions.create(model=MODEL, messages=ask(f"n{number}"))  # type: ignore[arg-type]
                return answer.choices[0].message.content or ""

            assert await asyncio.gather(*map(one, range(16))) == [f"ppo heard: n{number}" for number in range(16)]

    asyncio.run(run())
    assert len(live_server.models.loaded) == 1
