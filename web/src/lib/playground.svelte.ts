// The playground's request and its answer. They stay while other pages are open.

import { ApiError, blocks, call } from './api'
import { platform, type Price } from './platform'
import { DEFAULTS, requestOf, schemaOf, type Mode, type Parameters, type Request, type Role, type Turn } from './request'
import { session } from './session.svelte'
import { spansOfChat, spansOfText, type ContentToken, type LegacyTokens, type Span } from './tokens'

export interface Usage {
  prompt_tokens: number
  completion_tokens: number
  prompt_tokens_details: { cached_tokens: number } | null
}

/** An answer as far as it has come. Times are in seconds. */
export interface Answer {
  mode: Mode
  model: string
  prompt: string
  text: string
  spans: Span[]
  finish: string | null
  usage: Usage | null
  first: number | null
  seconds: number
  stopped: boolean
  error: string | null
}

interface Chunk {
  choices?: {
    delta?: { content?: string | null }
    text?: string
    finish_reason: string | null
    logprobs: { content: ContentToken[] } | LegacyTokens | null
  }[]
  usage?: Usage | null
  error?: { message: string }
}

/** Often enough to look like writing, seldom enough for long answers. */
const SHOW_SECONDS = 0.05

class Playground {
  mode = $state<Mode>('chat')
  model = $state('')
  turns = $state<Turn[]>([])
  prompt = $state('')
  parameters = $state<Parameters>({ ...DEFAULTS })
  answer = $state.raw<Answer | null>(null)
  running = $state(false)
  prices = $state.raw<Price[]>([])
  private ids = 0
  private controller: AbortController | null = null

  constructor() {
    this.clear()
  }

  get request(): Request {
    return requestOf(this.mode, this.model, this.turns, this.prompt, this.parameters)
  }

  get schemaWrong(): boolean {
    return this.mode === 'chat' && this.parameters.format === 'schema' && schemaOf(this.parameters.schema) === null
  }

  get ready(): boolean {
    const written = this.mode === 'chat' ? this.turns.some((turn) => turn.role !== 'system' && turn.content) : this.prompt !== ''
    return this.model !== '' && written && !this.schemaWrong && !this.running
  }

  add(role: Role, content = ''): Turn {
    const turn = { id: ++this.ids, role, content }
    this.turns.push(turn)
    return turn
  }

  remove(turn: Turn): void {
    this.turns = this.turns.filter((other) => other.id !== turn.id)
  }

  clear(): void {
    this.stop()
    this.turns = []
    this.add('system')
    this.add('user')
    this.prompt = ''
    this.answer = null
  }

  /** The answer becomes a turn, and the next one is the user's. */
  keep(): void {
    if (!this.answer) return
    if (this.answer.mode === 'chat') {
      this.add('assistant', this.answer.text)
      this.add('user')
    } else this.prompt = this.answer.prompt + this.answer.text
    this.answer = null
  }

  stop(): void {
    this.controller?.abort()
  }

  async run(): Promise<void> {
    if (!this.ready) return
    const controller = new AbortController()
    const { path, body } = this.request
    const mode = this.mode
    const prompt = mode === 'text' ? this.prompt : ''
    const answer: Answer = {
      mode, model: this.model, prompt, text: '', spans: [], finish: null, usage: null,
      first: null, seconds: 0, stopped: false, error: null,
    }
    const content: ContentToken[] = []
    const legacy: LegacyTokens = { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] }
    const begun = performance.now()
    let shown = 0
    const show = () => {
      if (this.controller !== controller) return
      answer.seconds = (performance.now() - begun) / 1000
      answer.spans = mode === 'chat' ? spansOfChat(content, answer.text) : spansOfText(legacy, answer.text)
      shown = performance.now()
      this.answer = { ...answer }
    }
    this.controller?.abort()
    this.controller = controller
    this.running = true
    show()
    try {
      for await (const block of blocks(await call('POST', `v1/${path}`, body, controller.signal))) {
        const data = block.startsWith('data: ') ? block.slice(6) : '[DONE]'
        if (data === '[DONE]') continue
        const chunk = JSON.parse(data) as Chunk
        if (chunk.error) throw new Error(chunk.error.message)
        answer.usage = chunk.usage ?? answer.usage
        const choice = chunk.choices?.[0]
        if (!choice) continue
        const text = (mode === 'chat' ? choice.delta?.content : choice.text) ?? ''
        answer.text += text
        answer.finish = choice.finish_reason ?? answer.finish
        if (choice.logprobs && 'content' in choice.logprobs) content.push(...choice.logprobs.content)
        else if (choice.logprobs) for (const key of KEYS) (legacy[key] as unknown[]).push(...choice.logprobs[key])
        if (text && answer.first === null) answer.first = (performance.now() - begun) / 1000
        if (performance.now() - shown > SHOW_SECONDS * 1000) show()
      }
    } catch (error) {
      if (controller.signal.aborted) answer.stopped = true
      else if (error instanceof ApiError && error.status === 401) session.reportProblem(error, null)
      else answer.error = error instanceof Error ? error.message : String(error)
    }
    show()
    if (this.controller === controller) {
      this.controller = null
      this.running = false
    }
  }

  /** For the cost of an answer; without the right to see them there is none. */
  async findPrices(): Promise<void> {
    if (!session.may('usage')) return
    try {
      this.prices = (await platform.prices()).data
    } catch {
      this.prices = []
    }
  }
}

const KEYS = ['tokens', 'token_logprobs', 'top_logprobs', 'text_offset'] as const

/** In dollars; null where there is no price. A model's own price, the longest beginning of its name, or its base's. */
export function costOf({ model, usage }: Answer, prices: Price[]): number | null {
  const names = model.startsWith('ft:') ? [model, model.split(':')[1] ?? ''] : [model]
  const price = names.map((name) => priceOf(name, prices)).find(Boolean)
  if (!price || !usage) return null
  const cached = usage.prompt_tokens_details?.cached_tokens ?? 0
  const fresh = usage.prompt_tokens - cached
  return (fresh * price.input + cached * price.cached_input + usage.completion_tokens * price.output) / 1e6
}

function priceOf(name: string, prices: Price[]): Price | undefined {
  const beginnings = prices.filter(({ model }) => model.endsWith('*') && name.startsWith(model.slice(0, -1)))
  beginnings.sort((a, b) => b.model.length - a.model.length)
  return prices.find(({ model }) => model === name) ?? beginnings[0]
}

export const playground = new Playground()
