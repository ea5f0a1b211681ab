"""POST /tokenize, /detokenize: texts as the model reads them."""

from __future__ import annotations

from typing import Any

import anyio.to_thread
from fastapi import APIRouter, Depends

from chatwheel.engine.detokenizer import spelled
from chatwheel.server.identity import PrincipalDep, needs
from chatwheel.server.services import ServicesDep
from chatwheel.server.tokens import DetokenizeRequest, TokenizeRequest

router = APIRouter(dependencies=[Depends(needs("models"))])
Json = dict[str, Any]


@router.post("/tokenize")
async def tokenize(body: TokenizeRequest, services: ServicesDep, who: PrincipalDep) -> Json:
    """The tokens of a text or a conversation."""
    entry = await services.catalog.find(who, body.model)
    async with services.models.use(entry) as assistant:
        tokenizer = assistant.tokenizer
        tokens = await anyio.to_thread.run_sync(body.read, tokenizer)
        written = [tokenizer.token(token)[0] for token in tokens] if body.return_token_strs else None
        return {
            "count": len(tokens),
            "max_model_len": assistant.context_length,
            "tokens": tokens,
            "token_strs": written,
        }


@router.post("/detokenize")
async def detokenize(body: DetokenizeRequest, services: ServicesDep, who: PrincipalDep) -> Json:
    """The text of tokens; what the model has no token for is nothing."""
    entry = await services.catalog.find(who, body.model)
    async with services.models.use(entry) as assistant:
        text, _ = await anyio.to_thread.run_sync(spelled, assistant.tokenizer, body.tokens)
        return {"prompt": text}
