// What test_node_client.py runs: the official client for Node against a server. Prints what it saw, as JSON.
import { createRequire } from "node:module";
import { createReadStream } from "node:fs";

const [modules, baseURL, model, path] = process.argv.slice(2);
const OpenAI = createRequire(`${modules}/`)("openai");
const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0, timeout: 120_000 });
const messages = [{ role: "user", content: "What is number 3?" }];
const same = { model, messages, temperature: 0, max_tokens: 8 };
const seen = {};

const failure = async (call) => {
  try {
    await call();
  } catch (error) {
    return { kind: error.constructor.name, status: error.status, code: error.code, param: error.param };
  }
  return null;
};
const answer = await client.chat.completions.create(same);
seen.object = answer.object;
seen.whole = answer.choices[0].message.content;
seen.usage = answer.usage;
seen.requestId = answer._request_id;
seen.streamed = "";
for await (const chunk of await client.chat.completions.create({
  ...same,
  stream: true,
  stream_options: { include_usage: true },
})) {
  seen.streamed += chunk.choices[0]?.delta?.content ?? "";
  seen.streamedUsage = chunk.usage ?? seen.streamedUsage;
}
const runner = client.chat.completions.stream(same);
seen.helper = (await runner.finalChatCompletion()).choices[0].message.content;
seen.unknownModel = await failure(() => client.chat.completions.create({ ...same, model: "gpt-5" }));
seen.wrong = await failure(() => client.chat.completions.create({ ...same, temperature: 3 }));
seen.vectors = (await client.embeddings.create({ model, input: ["one", "two"] })).data.map((one) => one.embedding.length);

const file = await client.files.create({ file: createReadStream(path), purpose: "fine-tune" });
seen.file = { filename: file.filename, purpose: file.purpose, bytes: file.bytes };
seen.content = await (await client.files.content(file.id)).text();
seen.files = [];
for await (const one of client.files.list({ limit: 1 })) seen.files.push(one.id);
seen.files = seen.files.includes(file.id);

const jobs = client.fineTuning.jobs;
const method = { type: "supervised", supervised: { hyperparameters: { n_epochs: 2, batch_size: 8 } } };
let job = await jobs.create({ model, training_file: file.id, method, suffix: "node" });
while (!["succeeded", "failed", "cancelled"].includes(job.status)) {
  await new Promise((done) => setTimeout(done, 100));
  job = await jobs.retrieve(job.id);
}
seen.status = job.status;
seen.tuned = job.fine_tuned_model;
seen.events = [];
for await (const event of jobs.listEvents(job.id, { limit: 3 })) seen.events.push(event.message);
seen.checkpoints = [];
for await (const one of jobs.checkpoints.list(job.id)) seen.checkpoints.push(one.fine_tuned_model_checkpoint);
seen.tunedSays = (await client.chat.completions.create({ ...same, model: job.fine_tuned_model })).model;
const waiting = await jobs.create({ model, training_file: file.id, method });
seen.cancelled = (await jobs.cancel(waiting.id)).id === waiting.id;
seen.wrongJob = await failure(() =>
  jobs.create({ model, training_file: file.id, method: { type: "supervised", supervised: { hyperparameters: { n_epochs: 99 } } } }),
);
seen.noJob = await failure(() => jobs.retrieve("ftjob-none"));
seen.deleted = (await client.models.delete(job.fine_tuned_model)).deleted;
seen.gone = await failure(() => client.models.retrieve(job.fine_tuned_model));
seen.fileDeleted = (await client.files.delete(file.id)).deleted;
console.log(JSON.stringify(seen));
