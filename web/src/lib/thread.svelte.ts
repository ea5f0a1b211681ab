// One conversation on the screen: a tree of messages, the branch that is shown, and the answer being written.

import { answer, api } from './api'
import { locale, t } from './i18n.svelte'
import type { AnswerEvent, Choice, Comparison, Conversation, ConversationWithMessages, Message, RatingValue } from './types'

interface Running {
  /** The answer's id once the server has told it. */
  id: string | null
  /** What it is called until then. */
  draft: string
  controller: AbortController
}

const ROOT = ''
const ANOTHER_ANSWER_TEMPERATURE = 0.8
let drafts = 0

/** A fault of the server in the reader's language; one that the reader can mend in the server's own words. */
function explain(error: { message: string; type: string }): string {
  return error.type === 'server_error' ? t('errorAnswer') : error.message
}

/** Whether it is one of the two. */
export function has(comparison: Comparison, message: Message): boolean {
  return comparison.first_id === message.id || comparison.second_id === message.id
}

export class Thread {
  conversation = $state<Conversation | null>(null)
  messages = $state<Message[]>([])
  comparisons = $state<Comparison[]>([])
  /** Whom one talks to; with its id as long as nothing has been said. */
  persona = $state.raw<{ id: string | null; name: string; system_prompt: string } | null>(null)
  /** The comparison that was decided last: whose the answers were is told under the one that is shown. */
  told = $state.raw<Comparison | null>(null)
  running = $state<Running | null>(null)
  /** A request that failed before there was an answer; `text` is what the user had written. */
  failure = $state.raw<{ text: string; error: unknown } | null>(null)
  /** Called when the server has saved the question and begins to answer. */
  started: ((conversation: Conversation) => void) | null = null
  leftOut = $state(0)
  /** The message to bring into view. */
  target = $state<string | null>(null)
  private unwritten = ''
  /** Resolved when the last rating has been sent. */
  private rated: Promise<unknown> = Promise.resolve()
  /** The chosen child of each message that has several. */
  private chosen = $state<Record<string, string>>({})
  readonly path: Message[] = $derived.by(() => this.walk())

  constructor(stored?: ConversationWithMessages) {
    if (!stored) return
    const { messages, comparisons, brief, ...conversation } = stored
    this.conversation = conversation
    this.messages = messages
    this.comparisons = comparisons
    if (brief?.persona) this.persona = { id: null, name: brief.persona, system_prompt: brief.system_prompt }
    for (const comparison of comparisons) {
      const pair = this.pair(comparison)
      const newest = pair[0] && this.siblings(pair[0]).at(-1)
      if (newest && pair.includes(newest)) this.choose(this.preferred(comparison) ?? newest)
    }
  }

  siblings(message: Message): Message[] {
    return this.messages.filter((other) => other.parent_id === message.parent_id)
  }

  choose(message: Message): void {
    this.chosen[message.parent_id ?? ROOT] = message.id
  }

  /** The branch with a message, and that message in view. */
  show(id: string): void {
    let message = this.find(id)
    if (!message) return
    this.target = id
    for (; message; message = this.find(message.parent_id ?? ROOT)) this.choose(message)
  }

  /** Asks; `parent` is the answer that this follows, null begins anew. Says whether the server took it. */
  async ask(text: string, model: string, parent: string | null = this.path.at(-1)?.id ?? null): Promise<boolean> {
    this.told = null
    const question = this.draft('user', text, parent)
    const reply = this.draft('assistant', '', question.id, model)
    this.messages.push(question, reply)
    this.choose(question)
    return await this.run(reply.id, text, async () => {
      this.conversation ??= await api.create(model, locale.language, this.persona?.id ?? null)
      const path = `api/conversations/${this.conversation.id}/messages`
      return [path, { content: text, model, parent_id: parent }]
    })
  }

  /** Another answer to the same question, beside the first. */
  async again(message: Message, model: string): Promise<void> {
    const parent = message.role === 'user' ? message.id : message.parent_id
    const reply = this.draft('assistant', '', parent, model)
    this.messages.push(reply)
    this.choose(reply)
    const temperature = message.status === 'error' ? 0 : ANOTHER_ANSWER_TEMPERATURE
    await this.run(reply.id, '', async () => [`api/messages/${message.id}/regenerate`, { model, temperature }])
  }

  /** Another answer to be compared with this one, which is shown until it is decided. */
  async compare(message: Message, model: string): Promise<void> {
    const reply = this.draft('assistant', '', message.parent_id, model)
    this.messages.push(reply)
    this.choose(message)
    this.told = null
    await this.run(reply.id, '', async () => [`api/messages/${message.id}/alternative`, model ? { model } : {}])
  }

  /** The comparison that waits for a choice and has this answer in it, if both are there or one is being written. */
  comparing(message: Message): Comparison | undefined {
    return this.comparisons.find((comparison) => {
      if (comparison.choice !== null || !has(comparison, message)) return false
      const pair = this.pair(comparison)
      return pair.length === 2 && pair.every((answer) => answer.content || this.writing(answer))
    })
  }

  /** A comparison's answers, in its order. */
  pair({ first_id, second_id }: Comparison): Message[] {
    return [first_id, second_id].map((id) => this.find(id)).filter((message) => message !== undefined)
  }

  /** What was decided, and whose the two answers are; the better one is shown from now on. */
  decided(comparison: Comparison, choice: Choice, models: (string | null)[]): void {
    comparison.choice = choice
    for (const [place, message] of this.pair(comparison).entries()) message.model = models[place] ?? message.model
    const shown = this.preferred(comparison)
    if (shown) this.choose(shown)
    this.told = comparison
  }

  /** The better answer of the two; the one that was there first while it is not known, or where none is better. */
  private preferred(comparison: Comparison): Message | undefined {
    const [first, second] = this.pair(comparison)
    if (comparison.choice === 'first') return first
    if (comparison.choice === 'second') return second
    return this.messages.find((message) => message === first || message === second)
  }

  writing(message: Message): boolean {
    return this.running !== null && message.id === (this.running.id ?? this.running.draft)
  }

  /** Ends the answer; the server keeps what there is of it. */
  async stop(): Promise<void> {
    const running = this.running
    if (!running) return
    if (!running.id) return running.controller.abort()
    await api.stop(running.id).catch(() => running.controller.abort())
  }

  async rate(message: Message, value: RatingValue, comment: string | null = null, reasons: string[] = []): Promise<void> {
    const before = message.rating
    message.rating = value === 0 ? null : { value, comment, reasons }
    // One after the other: of two requests at once the older could arrive last and stay.
    const sent = this.rated.then(() => api.rate(message.id, value, comment, reasons))
    this.rated = sent.catch(() => null)
    try {
      await sent
    } catch (error) {
      message.rating = before
      throw error
    }
  }

  private walk(): Message[] {
    const children = new Map<string, Message[]>()
    for (const message of this.messages) {
      const key = message.parent_id ?? ROOT
      children.set(key, [...(children.get(key) ?? []), message])
    }
    const path: Message[] = []
    for (let next = children.get(ROOT); next?.length; next = children.get(path.at(-1)?.id ?? ROOT)) {
      const wanted = this.chosen[path.at(-1)?.id ?? ROOT]
      const message = next.find((candidate) => candidate.id === wanted) ?? next.at(-1)
      if (!message) break
      path.push(message)
    }
    return path
  }

  private draft(role: 'user' | 'assistant', content: string, parent: string | null, model: string | null = null): Message {
    const status = role === 'user' ? 'complete' : 'partial'
    const now = Date.now() / 1000
    drafts += 1
    return { id: `draft-${drafts}`, parent_id: parent, role, content, model, status, created_at: now, rating: null }
  }

  private async run(
    reply: string,
    text: string,
    request: () => Promise<[path: string, body: unknown]>,
  ): Promise<boolean> {
    const controller = new AbortController()
    this.running = { id: null, draft: reply, controller }
    this.failure = null
    this.leftOut = 0
    try {
      const [path, body] = await request()
      for await (const event of answer(path, body, controller.signal)) this.take(event, reply)
    } catch (error) {
      this.failed(error, reply, text, controller.signal.aborted)
    } finally {
      const message = this.find(this.running.id ?? reply)
      if (message) this.flush(message)
      this.running = null
    }
    return this.failure === null
  }

  private take(event: AnswerEvent, reply: string): void {
    const running = this.running
    const message = this.find(running?.id ?? reply)
    if (!message || !running) return
    if (event.name === 'start') {
      this.conversation = event.data.conversation
      const question = event.data.user_message
      if (question) this.identify(message.parent_id ?? ROOT, question.id)
      this.identify(message.id, event.data.message.id)
      running.id = event.data.message.id
      if (event.data.comparison) this.comparisons.push({ ...event.data.comparison, later: false })
      this.started?.(event.data.conversation)
    } else if (event.name === 'delta') this.write(message, event.data.text)
    else if (event.name === 'note') this.leftOut = event.data.left_out
    else if (event.name === 'error') message.problem = explain(event.data.error)
    else message.status = event.data.status
  }

  /** Pieces may come by the hundred; the text grows once a frame. */
  private write(message: Message, text: string): void {
    const scheduled = this.unwritten !== ''
    this.unwritten += text
    if (!scheduled) requestAnimationFrame(() => this.flush(message))
  }

  private flush(message: Message): void {
    message.content += this.unwritten
    this.unwritten = ''
  }

  /** A draft gets the id that the server gave it. */
  private identify(draft: string, id: string): void {
    for (const message of this.messages) {
      if (message.id === draft) message.id = id
      if (message.parent_id === draft) message.parent_id = id
    }
    for (const [parent, child] of Object.entries(this.chosen)) {
      if (child === draft) this.chosen[parent] = id
      if (parent === draft) {
        this.chosen[id] = child
        delete this.chosen[parent]
      }
    }
  }

  private failed(error: unknown, reply: string, text: string, aborted: boolean): void {
    const message = this.find(this.running?.id ?? reply)
    if (message && this.running?.id) {
      message.status = 'partial'
      if (!aborted) message.problem = t('errorInterrupted')
      return
    }
    // The server never took it: back into the composer with the text.
    this.messages = this.messages.filter((other) => !other.id.startsWith('draft-'))
    this.failure = { text, error: aborted ? null : error }
  }

  private find(id: string): Message | undefined {
    return this.messages.find((message) => message.id === id)
  }
}
