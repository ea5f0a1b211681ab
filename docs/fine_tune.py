"""Fine-tunes a model on a file of examples with the official client, and says how often it is right before and after.

    pip install openai
    python docs/fine_tune.py train.jsonl test.jsonl

Both files have a conversation a line, as OpenAI's do: {"messages": [{"role": "user", ...}, {"role": "assistant", ...}]}
The answers of test.jsonl are what the model ought to say; nothing is learnt from them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from openai import OpenAI


def accuracy(client: OpenAI, model: str, examples: list[dict[str, Any]]) -> float:
    """The share of test examples that a model answers word for word, at temperature 0."""

    def right(example: dict[str, Any]) -> bool:
        *messages, wanted = example["messages"]
        answer = client.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=64)
        return (answer.choices[0].message.content or "").strip() == wanted["content"].strip()

    with ThreadPoolExecutor(8) as several:
        return sum(several.map(right, examples)) / len(examples)


def fine_tune(client: OpenAI, model: str, path: Path, suffix: str) -> str:
    """Uploads a file, has a model learn from it and waits; the new model's name."""
    uploaded = client.files.create(file=path, purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model=model, training_file=uploaded.id, suffix=suffix)
    print(f"{job.id} learns from {uploaded.id}")
    told: set[str] = set()
    while job.status not in ("succeeded", "failed", "cancelled"):
        time.sleep(1)
        job = client.fine_tuning.jobs.retrieve(job.id)
        for event in reversed(client.fine_tuning.jobs.list_events(job.id, limit=100).data):
            if event.id not in told and event.type == "message":
                print(f"  {event.message}")
            told.add(event.id)
    if job.status != "succeeded" or job.fine_tuned_model is None:
        sys.exit(f"the job has {job.status}: {job.error.message if job.error else 'no reason is given'}")
    return job.fine_tuned_model


def main() -> None:
    """The whole way."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("train", type=Path, help="what it learns from")
    parser.add_argument("test", type=Path, help="what it is examined on")
    parser.add_argument("--model", default="quickstart/sft")
    parser.add_argument("--suffix", default="topics", help="a part of the new model's name")
    parser.add_argument("--url", default=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"))
    options = parser.parse_args()
    # Until the first key is made, a server that only this machine can reach asks for none.
    client = OpenAI(base_url=options.url, api_key=os.environ.get("OPENAI_API_KEY", "none"))
    examples = [json.loads(line) for line in options.test.read_text(encoding="utf-8").splitlines()]

    before = accuracy(client, options.model, examples)
    print(f"before: {before:.0%} of {len(examples)} held-out questions are right")
    tuned = fine_tune(client, options.model, options.train, options.suffix)
    after = accuracy(client, tuned, examples)
    print(f"after:  {after:.0%}")
    print(f"ask {tuned}")


if __name__ == "__main__":
    main()
