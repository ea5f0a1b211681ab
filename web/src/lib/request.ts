// A playground's request, as it is sent and as code that sends the same.

export type Mode = 'chat' | 'text'
export type Role = 'system' | 'user' | 'assistant'
export type Format = 'text' | 'object' | 'schema'
export type Language = 'python' | 'curl' | 'javascript'

export interface Turn {
  id: number
  role: Role
  content: string
}

/** null: the server's default, which then is not sent. */
export interface Parameters {
  temperature: number | null
  top_p: number | null
  max_tokens: number | null
  seed: number | null
  stop: string
  frequency_penalty: number | null
  presence_penalty: number | null
  format: Format
  schema: string
  probabilities: boolean
}

export interface Request {
  path: 'chat/completions' | 'completions'
  body: Record<string, unknown>
}

export const DEFAULTS: Parameters = {
  temperature: null,
  top_p: null,
  max_tokens: null,
  seed: null,
  stop: '',
  frequency_penalty: null,
  presence_penalty: null,
  format: 'text',
  schema: '{\n  "type": "object",\n  "properties": {\n    "answer": { "type": "string" }\n  },\n  "required": ["answer"],\n  "additionalProperties": false\n}',
  probabilities: true,
}

/** A completion's own default of 16 tokens is too short to look at. */
export const TEXT_TOKENS = 128
const TOP = 5
const MOST_STOPS = 4

export function requestOf(mode: Mode, model: string, turns: Turn[], prompt: string, parameters: Parameters): Request {
  const chat = mode === 'chat'
  const given: Record<string, unknown> = {
    temperature: parameters.temperature,
    top_p: parameters.top_p,
    [chat ? 'max_completion_tokens' : 'max_tokens']: parameters.max_tokens ?? (chat ? null : TEXT_TOKENS),
    frequency_penalty: parameters.frequency_penalty,
    presence_penalty: parameters.presence_penalty,
    seed: parameters.seed,
    stop: stopsOf(parameters.stop),
    response_format: chat ? formatOf(parameters) : null,
  }
  const asked = chat
    ? { messages: turns.filter((turn) => turn.content || turn.role === 'user').map(({ role, content }) => ({ role, content })) }
    : { prompt }
  const likely = chat ? { logprobs: true, top_logprobs: TOP } : { logprobs: TOP }
  return {
    path: chat ? 'chat/completions' : 'completions',
    body: {
      model,
      ...asked,
      ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== null)),
      ...(parameters.probabilities ? likely : {}),
      stream: true,
      stream_options: { include_usage: true },
    },
  }
}

/** One a line; a line break itself is written \n. */
function stopsOf(lines: string): string[] | null {
  const stops = lines.split('\n').filter(Boolean).slice(0, MOST_STOPS)
  return stops.length ? stops.map((line) => line.replaceAll('\\n', '\n')) : null
}

/** null: the text is no JSON object. */
export function schemaOf(text: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(text)
    return value !== null && typeof value === 'object' && !Array.isArray(value) ? (value as Record<string, unknown>) : null
  } catch {
    return null
  }
}

function formatOf({ format, schema }: Parameters): unknown {
  if (format === 'object') return { type: 'json_object' }
  if (format === 'schema') return { type: 'json_schema', json_schema: { name: 'answer', schema: schemaOf(schema) ?? {} } }
  return null
}

/** Code that sends exactly this request. origin: of the server, with its path if it has one. */
export function codeOf(language: Language, { path, body }: Request, origin: string): string {
  return { python, curl, javascript }[language](path, body, origin)
}

function curl(path: string, body: Record<string, unknown>, origin: string): string {
  const quoted = JSON.stringify(body, null, 2).replaceAll("'", "'\\''")
  return [
    `curl -N ${origin}/v1/${path} \\`,
    '  -H "Authorization: Bearer $CHATWHEEL_API_KEY" \\',
    "  -H 'Content-Type: application/json' \\",
    `  -d '${quoted}'`,
  ].join('\n')
}

function python(path: string, body: Record<string, unknown>, origin: string): string {
  const fields = Object.entries(body).map(([name, value]) => `    ${name}=${pythonOf(value, 1)},`)
  const piece = path === 'completions' ? 'chunk.choices[0].text' : 'chunk.choices[0].delta.content or ""'
  return [
    'import os',
    '',
    'from openai import OpenAI',
    '',
    'client = OpenAI(',
    `    base_url=${JSON.stringify(`${origin}/v1`)},`,
    '    api_key=os.environ["CHATWHEEL_API_KEY"],',
    ')',
    `stream = client.${path.replaceAll('/', '.')}.create(`,
    ...fields,
    ')',
    'for chunk in stream:',
    '    if chunk.choices:',
    `        print(${piece}, end="", flush=True)`,
  ].join('\n')
}

/** JSON's texts and numbers are Python's; its three words, and where lines break, are not. */
function pythonOf(value: unknown, depth: number): string {
  if (value === null) return 'None'
  if (typeof value === 'boolean') return value ? 'True' : 'False'
  if (typeof value !== 'object') return JSON.stringify(value)
  const pair = Array.isArray(value)
  const parts = pair
    ? value.map((part) => pythonOf(part, depth + 1))
    : Object.entries(value).map(([name, part]) => `${JSON.stringify(name)}: ${pythonOf(part, depth + 1)}`)
  return bracketed(parts, pair ? '[]' : '{}', depth, '')
}

function javascript(path: string, body: Record<string, unknown>, origin: string): string {
  const piece = path === 'completions' ? "chunk.choices[0]?.text ?? ''" : "chunk.choices[0]?.delta.content ?? ''"
  return [
    "import OpenAI from 'openai'",
    '',
    'const client = new OpenAI({',
    `    baseURL: ${JSON.stringify(`${origin}/v1`)},`,
    '    apiKey: process.env.CHATWHEEL_API_KEY,',
    '})',
    `const stream = await client.${path.replaceAll('/', '.')}.create(${javascriptOf(body, 0)})`,
    `for await (const chunk of stream) process.stdout.write(${piece})`,
  ].join('\n')
}

function javascriptOf(value: unknown, depth: number): string {
  if (value === null || typeof value !== 'object') return JSON.stringify(value)
  if (Array.isArray(value)) return bracketed(value.map((part) => javascriptOf(part, depth + 1)), '[]', depth, '')
  const parts = Object.entries(value).map(([name, part]) => {
    // In an object literal "__proto__": ... would set the prototype, in brackets it is a field like others.
    const key = name === '__proto__' ? '["__proto__"]' : /^[A-Za-z_]\w*$/.test(name) ? name : JSON.stringify(name)
    return `${key}: ${javascriptOf(part, depth + 1)}`
  })
  return bracketed(parts, '{}', depth, ' ')
}

const WIDTH = 88

/** On one line where it is short. */
function bracketed(parts: string[], [open, close]: string, depth: number, space: string): string {
  const pad = '    '.repeat(depth)
  const line = parts.length ? `${open}${space}${parts.join(', ')}${space}${close}` : `${open}${close}`
  if (depth > 0 && line.length + pad.length <= WIDTH && !line.includes('\n')) return line
  return [open, ...parts.map((part) => `${pad}    ${part},`), `${pad}${close}`].join('\n')
}
