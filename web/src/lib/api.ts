// The server's /api: JSON requests, and answers as server-sent events over fetch (EventSource cannot POST).

import type {
  AnswerEvent,
  Conversation,
  ConversationWithMessages,
  Finding,
  Me,
  Message,
  ModelList,
  Point,
  Rating,
  RatingValue,
  Rollout,
  Run,
  RunEvent,
  RunWithRecipe,
  SampleLine,
  SearchHit,
} from './types'

const KEY = 'chatwheel.key'

export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code: string | null = null,
    /** Which field of the request is wrong. */
    readonly param: string | null = null,
    /** After how many seconds it may be tried again. */
    readonly retryAfter: number | null = null,
  ) {
    super(message)
  }
}

/** The key lives as long as the tab. */
export function setKey(key: string): void {
  sessionStorage.setItem(KEY, key)
}

export function hasKey(): boolean {
  return sessionStorage.getItem(KEY) !== null
}

export function forgetKey(): void {
  sessionStorage.removeItem(KEY)
}

let csrf: string | null = null

/** What shows the server that this page asks, and no other one whose requests the browser sends the cookie with. */
export function setCsrf(token: string | null): void {
  csrf = token
}

/** The headers that tell who asks; who signed in is told by a cookie. */
export function authorization(): Record<string, string> {
  const key = sessionStorage.getItem(KEY)
  return key ? { authorization: `Bearer ${key}` } : csrf ? { 'x-csrf-token': csrf } : {}
}

export async function call(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  const response = await send(method, path, body, signal)
  if (response.ok) return response
  const error = await errorOf(response)
  // Another tab has signed in anew: the cookie is all tabs', the token this one's.
  if (error.code !== 'csrf_token_invalid') throw error
  setCsrf(((await (await send('GET', 'v1/session')).json()) as { csrf_token: string | null }).csrf_token)
  const again = await send(method, path, body, signal)
  if (!again.ok) throw await errorOf(again)
  return again
}

async function send(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  const headers = authorization()
  if (body !== undefined) headers['content-type'] = 'application/json'
  const init: RequestInit = { method, headers }
  if (body !== undefined) init.body = JSON.stringify(body)
  if (signal) init.signal = signal
  try {
    return await fetch(path, init)
  } catch (error) {
    if (signal?.aborted) throw error
    throw new ApiError('', 0, 'unreachable')
  }
}

async function errorOf(response: Response): Promise<ApiError> {
  const body = await response.json().catch(() => null)
  const error = body?.error ?? {}
  const wait = response.headers.get('retry-after')
  return new ApiError(
    error.message ?? response.statusText,
    response.status,
    error.code ?? null,
    error.param ?? null,
    wait === null ? null : Number(wait) || null,
  )
}

export async function json<T>(method: string, path: string, body?: unknown): Promise<T> {
  const response = await call(method, path, body)
  return (response.status === 204 ? undefined : await response.json()) as T
}

/** The events of an answer, one by one. */
export async function* answer(path: string, body: unknown, signal: AbortSignal): AsyncGenerator<AnswerEvent> {
  yield* events<AnswerEvent>(await call('POST', path, body, signal))
}

async function* events<Event>(response: Response): AsyncGenerator<Event> {
  for await (const block of blocks(response)) {
    const event = parse<Event>(block)
    if (event) yield event
  }
}

/** Server-sent events as they come, each one's lines as one text. */
export async function* blocks(response: Response): AsyncGenerator<string> {
  if (!response.body) return
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  let rest = ''
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    const whole = (rest + value).split('\n\n')
    rest = whole.pop() ?? ''
    yield* whole
  }
}

function parse<Event>(block: string): Event | null {
  const fields = new Map(block.split('\n').map((line) => [line.split(':', 1)[0], line.slice(line.indexOf(':') + 2)]))
  const name = fields.get('event')
  const data = fields.get('data')
  return name && data ? ({ name, data: JSON.parse(data) } as Event) : null
}

export const id = encodeURIComponent

export const api = {
  me: () => json<Me>('GET', 'v1/me'),
  models: () => json<ModelList>('GET', 'api/models'),
  conversations: () => json<{ data: Conversation[] }>('GET', 'api/conversations'),
  conversation: (conversation: string) =>
    json<ConversationWithMessages>('GET', `api/conversations/${id(conversation)}`),
  search: async (words: string, signal: AbortSignal): Promise<SearchHit[]> => {
    const response = await call('GET', `api/conversations/search?q=${id(words)}`, undefined, signal)
    return ((await response.json()) as { data: SearchHit[] }).data
  },
  create: (model: string, language: string, persona: string | null) =>
    json<Conversation>('POST', 'api/conversations', { model, language, persona }),
  rename: (conversation: string, title: string) =>
    json<Conversation>('PATCH', `api/conversations/${id(conversation)}`, { title }),
  remove: (conversation: string) => json<void>('DELETE', `api/conversations/${id(conversation)}`),
  restore: (conversation: string) => json<Conversation>('POST', `api/conversations/${id(conversation)}/restore`),
  stop: (message: string) => json<Message>('POST', `api/messages/${id(message)}/stop`),
  rate: (message: string, value: RatingValue, comment: string | null, reasons: string[]) =>
    json<Rating | null>('PUT', `api/messages/${id(message)}/rating`, { value, comment, reasons }),
  takeBack: (message: string) => json<void>('DELETE', `api/messages/${id(message)}/correction`),
  consent: () => json<{ improve: boolean }>('GET', 'api/consent'),
  agree: (improve: boolean) => json<{ improve: boolean }>('PUT', 'api/consent', { improve }),
  reportLink: (run: string) => json<{ url: string }>('POST', `api/report/ticket?run=${id(run)}`),
  runs: () => json<{ data: Run[] }>('GET', 'v1/runs'),
  run: (run: string) => json<RunWithRecipe>('GET', `v1/runs/${id(run)}`),
  runMetrics: (run: string, stage: string) =>
    json<{ data: Point[] }>('GET', `v1/runs/${id(run)}/stages/${id(stage)}/metrics`),
  runSamples: (run: string, stage: string) =>
    json<{ data: SampleLine[] }>('GET', `v1/runs/${id(run)}/stages/${id(stage)}/samples`),
  runFindings: (run: string, stage: string) =>
    json<{ data: Finding[] }>('GET', `v1/runs/${id(run)}/stages/${id(stage)}/findings`),
  runRollout: (run: string, stage: string, step: number | null) =>
    json<Rollout>('GET', `v1/runs/${id(run)}/stages/${id(stage)}/rollouts${step === null ? '' : `?step=${step}`}`),
  runEvents: async function* (run: string, signal: AbortSignal): AsyncGenerator<RunEvent> {
    yield* events<RunEvent>(await call('GET', `v1/runs/${id(run)}/events`, undefined, signal))
  },
}
