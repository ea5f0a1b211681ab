"""A rehearsal of the wheel: simulated people use a running server until it has made a better model of what they said.

    .venv/bin/python docs/rehearsal.py --home data --json found.json

data is the home of `chatwheel quickstart`, whose SFT model is the one that people find; it is copied and not changed.
First they say what they mean until the forecast says that it is enough; the wheel turns, and what passes its gate is
promoted to a part, then to all. Then, in a copy with the new model, the labellers rank upside down: the gate refuses
what comes of it, and where it is promoted all the same, the thumbs of those whom it answers take it back.

Everything goes through the HTTP API, as it does for people. Nobody here is one: the labellers are those of the small
world (chatwheel.data.world), three of them with a strong habit, one who draws places at random, and their names say so.
What the new model is worth is told at the end by the gold judge, of which neither labellers nor gate know.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import httpx

from chatwheel.data.records import Message
from chatwheel.data.world import LABELLERS, Item, Labeller, examination, prompts, rank
from chatwheel.data.world.labellers import score
from chatwheel.evaluation.examination import EXAMINATION_SEED, preference
from chatwheel.evaluation.judges import GoldJudge

Json = dict[str, Any]
LATEST = "chatwheel-latest"
ASKED = 77  # a seed of its own: prompts that no run of the quickstart has seen in this order
TIE = 0.6
LIKED = 6.0
"""Of a labeller's score, from which on who chats gives a thumb up: for what is right, short, polite and whole."""


@dataclass(frozen=True)
class Person:
    """upper: added to the answer on top, less to those below it. drawn: ranks without looking."""

    labeller: Labeller
    upper: float = 0.0
    drawn: bool = False
    flipped: bool = False

    @property
    def name(self) -> str:
        return str(self.labeller.known_as)

    def scores(self, item: Item, answers: Sequence[str], rng: Random) -> list[float]:
        if self.drawn:
            return [rng.uniform(0, 6) for _ in answers]
        found = rank(item, answers, self.labeller, rng).scores or []
        last = max(1, len(answers) - 1)
        scores = [value + self.upper * (1 - place / last) for place, value in enumerate(found)]
        return [-value for value in scores] if self.flipped else scores

    def ranks(self, item: Item, answers: Sequence[str], rng: Random) -> list[int]:
        """1 is the best; what is nearly as good shares its place."""
        scores = self.scores(item, answers, rng)
        places, place, best = [0] * len(scores), 0, float("inf")
        for position, i in enumerate(sorted(range(len(scores)), key=lambda i: -scores[i]), start=1):
            if best - scores[i] > TIE:
                place, best = position, scores[i]
            places[i] = place
        return places


def crew(*, flipped: bool = False) -> list[Person]:
    """Eight who look at what is right, three with a strong habit, and one at random."""
    honest = [replace(one, name=f"{one.name}-{n}") for n in (1, 2) for one in LABELLERS]
    anna, bo, chen, dara = LABELLERS
    return [
        *(Person(one, flipped=flipped) for one in honest),
        Person(replace(bo, name="biased-long", bias_weight=6.0)),
        Person(replace(anna, name="biased-upper"), upper=6.0),
        Person(replace(dara, name="biased-short", bias="long", bias_weight=-6.0)),
        Person(replace(chen, name="random"), drawn=True),
    ]


class Server:
    """A running server, asked with one person's key; without one as whoever sits at the machine."""

    def __init__(self, url: str, key: str | None = None) -> None:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self.http = httpx.Client(base_url=url, headers=headers, timeout=600)
        self.url = url

    def ask(self, method: str, path: str, body: Json | None = None) -> Any:
        reply = self.http.request(method, path, json=body)
        if reply.is_error:
            raise SystemExit(f"{method} {path}: {reply.status_code} {reply.text}")
        return reply.json() if reply.content else None

    def person(self, name: str, project: str, scopes: Sequence[str]) -> Server:
        """A new user of a project, with a key."""
        user = self.ask("POST", "/v1/organization/users", {"name": name})["id"]
        self.ask("POST", f"/v1/organization/projects/{project}/users", {"user_id": user})
        body = {"name": name, "user_id": user, "scopes": list(scopes)}
        key = self.ask("POST", f"/v1/organization/projects/{project}/api_keys", body)
        return Server(self.url, key["value"])

    def chat(self, question: str) -> tuple[str, str]:
        """Asks in a new conversation; the answer's id and text."""
        made = self.ask("POST", "/api/conversations", {"model": LATEST})["id"]
        number, text = "", ""
        path = f"/api/conversations/{made}/messages"
        with self.http.stream("POST", path, json={"content": question, "temperature": 1.0}) as reply:
            reply.raise_for_status()
            for line in reply.iter_lines():
                if line.startswith("data: {"):
                    event = json.loads(line[6:])
                    number = event.get("message", {}).get("id", number)
                    text += event.get("text", "")
        return number, text

    def answer(self, model: str, messages: Sequence[Message], seed: int) -> str:
        """By the OpenAI-compatible API."""
        body = {
            "model": model,
            "messages": [{"role": m.role, "content": m.content} for m in messages],
            "seed": seed,
            "max_tokens": 96,
        }
        return str(self.ask("POST", "/v1/chat/completions", body)["choices"][0]["message"]["content"])


class Rehearsal:
    """One server, the people, and what they do."""

    def __init__(self, server: Server, start: str, *, flipped: bool, say: Callable[[str], None]) -> None:
        me = server.ask("GET", "/v1/me")
        project = me["project"]["id"]
        # With the first key nobody is let in without one any more.
        made = server.ask(
            "POST",
            f"/v1/organization/projects/{project}/api_keys",
            {"name": "rehearsal", "scopes": me["scopes"]},
        )
        server.http.headers["authorization"] = f"Bearer {made['value']}"
        self.server, self.start, self.say = server, start, say
        self.people = crew(flipped=flipped)
        with ThreadPoolExecutor(4) as pool:
            made = pool.map(lambda one: server.person(one.name, project, ["labelling"]), self.people)
            self.labellers = list(zip(self.people, made, strict=True))
            names = [f"simulated:chat-{n}" for n in range(1, 9)]
            self.chatting = list(pool.map(lambda name: server.person(name, project, ["conversations"]), names))
            list(pool.map(lambda one: one.ask("PUT", "/api/consent", {"improve": True}), self.chatting))
        self.items: dict[str, Item] = {}
        server.ask("POST", "/v1/deployments", {"model": start})
        queue = {"name": "Rehearsal", "kind": "rank", "labellers": 2, "guidelines": "Simulated people rank here."}
        self.queue = server.ask("POST", "/v1/labelling/queues", queue)["id"]

    def sample(self, items: Sequence[Item], answers: int = 4) -> None:
        """The model answers prompts, which go into the queue."""
        self.items |= {_key([{"role": m.role, "content": m.content} for m in item.messages]): item for item in items}

        def some(place: int) -> int:
            asked = [
                [{"role": m.role, "content": m.content} for m in item.messages] for item in items[place : place + 25]
            ]
            body = {"model": self.start, "prompts": asked, "answers": answers, "seed": 1000 * place, "max_tokens": 96}
            return int(self.server.ask("POST", f"/v1/labelling/queues/{self.queue}/sample", body)["added"])

        with ThreadPoolExecutor(8) as pool:
            added = sum(pool.map(some, range(0, len(items), 25)))
        self.say(f"{added} prompts with up to {answers} answers of {self.start} wait to be ranked")

    def label(self) -> None:
        """Everybody ranks until there is nothing left."""

        def work(pair: tuple[Person, Server]) -> int:
            (person, server), rng, done = pair, Random(pair[0].name), 0
            while task := server.ask("POST", f"/v1/labelling/queues/{self.queue}/next"):
                ranks = person.ranks(self.items[_key(task["messages"])], task["answers"], rng)
                server.ask("POST", f"/v1/labelling/assignments/{task['id']}/judgement", {"ranks": ranks})
                done += 1
            return done

        with ThreadPoolExecutor(len(self.labellers)) as pool:
            done = list(pool.map(work, self.labellers))
        self.say(f"{sum(done):,} rankings by {len(done)} people")

    def use(self, items: Sequence[Item], *, correct: bool = True) -> Json:
        """People chat, rate each answer, and correct what was wrong; how many of each there are."""
        judge = GoldJudge()

        def work(n: int) -> tuple[int, int, int]:
            up = down = corrected = 0
            for item in items[n :: len(self.chatting)]:
                message, text = self.chatting[n].chat(item.messages[-1].content)
                liked = score(item, text, LABELLERS[n % len(LABELLERS)]) > LIKED
                self.chatting[n].ask("PUT", f"/api/messages/{message}/rating", {"value": 1 if liked else -1})
                up, down = up + liked, down + (not liked)
                if correct and not judge.mark(item, text).correct:
                    self.chatting[n].ask("PUT", f"/api/messages/{message}/correction", {"content": item.answer})
                    corrected += 1
            return up, down, corrected

        with ThreadPoolExecutor(len(self.chatting)) as pool:
            up, down, corrected = (
                sum(column) for column in zip(*pool.map(work, range(len(self.chatting))), strict=True)
            )
        self.say(f"{up + down} chats: {up} thumbs up, {down} down, {corrected} answers corrected")
        return {"up": up, "down": down, "corrected": corrected}

    def named(self) -> dict[str, str]:
        """Whom the queue's report accuses, and of what."""
        report = self.server.ask("GET", f"/v1/labelling/queues/{self.queue}/report")
        found = {line["name"]: line for line in report["labellers"]}
        accused = {name: line["words"] for name, line in found.items() if line["verdict"] not in (None, "ok")}
        for name, words in accused.items():
            self.say(f"  {name}: {words}")
        return accused

    def turn(self, changes: Json | None = None) -> Json:
        """Turns the wheel and waits for the gate."""
        turn = self.server.ask("POST", "/v1/wheel/turns", {"changes": changes or {}})
        name, doing = turn["name"], None
        while turn["state"] in ("waiting", "running"):
            if turn["doing"] != doing:
                doing = turn["doing"]
                self.say(f"  {name}: {doing or 'waiting'}")
            time.sleep(1)
            turn = self.server.ask("GET", f"/v1/wheel/turns/{name}")
        if turn["state"] != "done":
            raise SystemExit(f"{name} {turn['state']}: {turn['error']}")
        self.say(f"  {name}: {turn['verdict']['words']}")
        return dict(turn)

    def gold(self, ours: str, theirs: str, count: int = 400) -> dict[str, float]:
        """How the gold judge likes one model's answers to the examination beside another's."""
        items = list(examination(EXAMINATION_SEED, count, ("en", "zh")))

        def given(model: str) -> list[str]:
            with ThreadPoolExecutor(16) as pool:
                return list(pool.map(lambda i: self.server.answer(model, items[i].messages, i), range(len(items))))

        return {"preferred": preference(items, given(ours), given(theirs)), "prompts": len(items)}


def _key(messages: Sequence[Json]) -> str:
    return json.dumps([[m["role"], m["content"]] for m in messages], ensure_ascii=False)


@contextmanager
def serving(home: Path) -> Iterator[Server]:
    """`chatwheel serve` on a free port."""
    command = [sys.executable, "-m", "chatwheel", "serve", "--home", str(home), "--port", "0"]
    log = home / "server.log"
    with log.open("w") as said, subprocess.Popen(command, stdout=said, stderr=said) as process:
        try:
            yield Server(_address(process, log))
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    for _ in range(600):
        if found := re.search(r"Page\s+(http://\S+)", log.read_text()):
            return found[1]
        if process.poll() is not None:
            break
        time.sleep(0.2)
    raise SystemExit(f"the server did not start:\n{log.read_text()}")


def copied(home: Path, start: str, place: Path) -> Path:
    """A home of its own with the model to begin with and what that was made from, so that nothing of `home` changes."""
    shutil.copytree(home / "models" / start, place / "models" / start)
    run = start.split("/")[0]
    source = home / "runs" / run / "data"
    if source.is_dir():
        shutil.copytree(source, place / "runs" / run / "data")
    return place


def rehearse(server: Server, start: str, say: Callable[[str], None], *, rounds: int, size: int, changes: Json) -> Json:
    """Rounds of labelling until there is enough, a turn, the gate, promotion, and what the gold judge says."""
    people = Rehearsal(server, start, flipped=False, say=say)
    items = list(prompts(ASKED, rounds * size, ("en", "zh")))
    chats = [item for item in prompts(ASKED + 1, 400, ("en", "zh")) if len(item.messages) == 1]
    ready: Json = {}
    for n in range(rounds):
        say(f"round {n + 1}")
        people.sample(items[n * size : (n + 1) * size])
        people.label()
        people.use(chats[n * 80 : (n + 1) * 80])
        forecast = server.ask("POST", "/v1/wheel/forecast")
        while forecast["state"] == "running":
            time.sleep(1)
            forecast = server.ask("GET", "/v1/wheel/forecast")
        ready = server.ask("GET", "/v1/wheel")["readiness"]
        say(f"  {ready['words']}")
        if ready["ready"]:
            break
    accused = people.named()
    turn = people.turn(changes)
    found: Json = {"readiness": ready, "accused": accused, "turn": turn["name"], "verdict": turn["verdict"]["verdict"]}
    found |= {"words": turn["verdict"]["words"], "candidate": turn["candidate"], "passed": turn["verdict"]["passed"]}
    if turn["verdict"]["passed"]:
        path = f"/v1/wheel/turns/{turn['name']}/promote"
        server.ask("POST", path, {"share": 0.05})
        server.ask("POST", path, {"share": 1.0})
        say(f"{turn['candidate']} answers everybody")
    found["gold"] = people.gold(turn["candidate"], start)
    say(f"gold judge: {found['gold']['preferred'] * 100:.1f} % of {found['gold']['prompts']} answers preferred")
    return found


def rehearse_flipped(server: Server, start: str, say: Callable[[str], None], *, size: int, changes: Json) -> Json:
    """Who ranks by what is right ranks upside down, while those who chat say what they mean: the gate refuses what
    comes of it. Promoted all the same, to a half, it is taken back for the thumbs of those whom it answers."""
    people = Rehearsal(server, start, flipped=True, say=say)
    chats = [item for item in prompts(ASKED + 1, 400, ("en", "zh")) if len(item.messages) == 1]
    people.sample(list(prompts(ASKED, size, ("en", "zh"))))
    people.label()
    people.use(chats[:160])
    turn = people.turn(changes)
    found: Json = {"turn": turn["name"], "verdict": turn["verdict"]["verdict"], "words": turn["verdict"]["words"]}
    found["gold"] = people.gold(turn["candidate"], start)
    say(f"gold judge: {found['gold']['preferred'] * 100:.1f} % of {found['gold']['prompts']} answers preferred")
    path = f"/v1/wheel/turns/{turn['name']}/promote"
    refused = server.http.post(path, json={"share": 0.5})
    found["refused"] = refused.status_code
    server.ask("POST", path, {"share": 0.5, "anyway": True})
    chats = [item for item in prompts(ASKED + 2, 3000, ("en", "zh")) if len(item.messages) == 1]
    used, deadline = 0, time.monotonic() + 300
    while _answering(server) != [start] and time.monotonic() < deadline:
        if used < len(chats):
            people.use(chats[used : used + 160], correct=False)
            used += 160
        else:
            time.sleep(2)
    rows = server.ask("GET", "/v1/deployments")["data"]
    found["taken_back"] = next((row for row in rows if row["outcome"] == "rolled_back"), None)
    say(f"who answers now: {', '.join(_answering(server))}; {found['taken_back'] and found['taken_back']['note']}")
    return found


def _answering(server: Server) -> list[str]:
    rows = server.ask("GET", "/v1/deployments")["data"]
    return [row["model"] for row in rows if row["ended_at"] is None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path("data"), help="with the model to begin with")
    parser.add_argument("--start", default="quickstart/sft", help="the model that people find")
    parser.add_argument("--scratch", type=Path, help="where the copies of the home are made; kept")
    parser.add_argument("--only", choices=("better", "flipped"))
    parser.add_argument("--rounds", type=int, default=3, help="of labelling, at most")
    parser.add_argument("--size", type=int, default=500, help="prompts of a round")
    parser.add_argument("--rollouts", type=int, help="of PPO, instead of the turn's own")
    parser.add_argument("--json", type=Path, help="where what was found is written")
    options = parser.parse_args()
    scratch = options.scratch or Path(tempfile.mkdtemp(prefix="chatwheel-rehearsal-"))
    began = time.monotonic()

    def say(words: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {words}", flush=True)

    changes: Json = {"ppo": {"rollouts": options.rollouts}} if options.rollouts else {}
    found: Json = {}
    if options.only != "flipped":
        say("people who are right, mostly")
        with serving(copied(options.home, options.start, scratch / "better")) as server:
            found["better"] = rehearse(
                server, options.start, say, rounds=options.rounds, size=options.size, changes=changes
            )
    if options.only != "better":
        say("the same people, upside down")
        home, start = options.home, options.start
        if found.get("better", {}).get("passed"):
            home, start = scratch / "better", found["better"]["candidate"]
        with serving(copied(home, start, scratch / "flipped")) as server:
            found["flipped"] = rehearse_flipped(server, start, say, size=2 * options.size, changes=changes)
    found["seconds"] = round(time.monotonic() - began)
    if options.json:
        options.json.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n")
    print(f"{found['seconds']} s in all; homes in {scratch}")


if __name__ == "__main__":
    main()
