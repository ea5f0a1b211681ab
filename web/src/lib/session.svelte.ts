// What the whole page shares: the models, the list of conversations, and which one is open.

import { account, type Account } from './account'
import { api, ApiError, forgetKey, hasKey, setKey } from './api'
import { t } from './i18n.svelte'
import type { Prompt } from './prompts'
import { has, Thread } from './thread.svelte'
import type { Conversation, Me, Message, Model, Persona } from './types'

const MODEL = 'chatwheel.model'

const PAGES = ['playground', 'console', 'label', 'library', 'wheel'] as const
const isPage = (page: string | undefined): page is (typeof PAGES)[number] => PAGES.some((one) => one === page)

/** A page that is fetched when it is first opened, and where in it one is. */
export interface Place {
  page: (typeof PAGES)[number]
  path: string[]
  query: URLSearchParams
}

/** What is fetched when it is first asked for, and lies over the page. */
export interface Overlay {
  name: 'search' | 'import' | 'shortcuts' | 'password' | 'sessions'
}

function runOf(hash: string): string | null {
  return /^#\/runs(?:\/([\w.-]*))?$/.exec(hash)?.slice(1).join('') ?? null
}

function placeOf(hash: string): Place | null {
  const [address = '', query = ''] = hash.split('?', 2)
  const [page, ...path] = address.split('/').slice(1)
  if (!isPage(page)) return null
  return { page, path, query: new URLSearchParams(query) }
}

class Session {
  ready = $state(false)
  models = $state<Model[]>([])
  model = $state('')
  report = $state<string | null>(null)
  conversations = $state<Conversation[]>([])
  thread = $state(new Thread())
  /** What the composer holds. */
  draft = $state('')
  /** One that the composer is to take. */
  prompt = $state.raw<Prompt | null>(null)
  problem = $state<{ message: string; retry: (() => void) | null } | null>(null)
  /** The run that is watched, '' for the list of them; null while chatting. */
  watching = $state<string | null>(runOf(location.hash))
  /** The page beside the chat and the training runs that is open. */
  place = $state.raw<Place | null>(placeOf(location.hash))
  /** Who asks; a new one with each key that is entered. */
  me = $state.raw<Me | null>(null)
  /** How they came in; null while it is not known. */
  account = $state.raw<Account | null>(null)
  /** A temporary password that was just typed: it is to be changed. */
  temporary: string | null = null
  /** Whether models may learn from one's chats; null while it is not known. */
  improve = $state<boolean | null>(null)
  /** What has just been done; `act` is behind the button `label`. */
  toast = $state.raw<{ text: string; label?: string; act?: () => void } | null>(null)
  /** What lies over the page. */
  overlay = $state.raw<Overlay | null>(null)
  needsKey = $state(false)
  wrongKey = $state(false)
  /** Conversations whose answer is still being written while another one is on the screen. */
  private background = new Map<string, Thread>()

  async start(): Promise<void> {
    try {
      this.account = await account.find()
      this.needsKey = this.account.by === null
      if (this.needsKey) return
      if (this.account.must_change) {
        this.overlay = { name: 'password' }
        return
      }
      this.me = await api.me()
      const standard = await this.findModels()
      const remembered = localStorage.getItem(MODEL)
      this.model = this.models.find((model) => model.id === remembered)?.id ?? standard
      await this.refresh()
      this.needsKey = false
      this.ready = true
      void this.findConsent()
      if (!location.hash && !this.may('conversations'))
        history.replaceState(null, '', this.may('chat', 'completions') ? '#/playground' : this.may('labelling') ? '#/label' : '#/console')
      await this.follow()
    } catch (error) {
      this.reportProblem(error, () => void this.start())
    }
  }

  async enter(key: string): Promise<void> {
    setKey(key)
    this.wrongKey = false
    await this.start()
    this.wrongKey = this.needsKey
  }

  /** By name and password. Raises ApiError. */
  async signIn(name: string, password: string): Promise<void> {
    const before = this.me?.user.id
    const found = await account.signIn(name, password)
    forgetKey()
    if (before !== undefined && before !== found.user?.id) {
      history.replaceState(null, '', location.pathname + location.search) // somebody else's conversation is none of theirs
      return location.reload()
    }
    this.temporary = found.must_change ? password : null
    await this.start()
  }

  /** Here, or everywhere; what was on the screen goes with it. */
  async signOut(everywhere = false): Promise<void> {
    try {
      if (this.account?.by === 'password' && !hasKey()) await (everywhere ? account.signOutEverywhere() : account.signOut())
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 401) return this.reportProblem(error, null)
    }
    forgetKey()
    history.replaceState(null, '', location.pathname + location.search)
    location.reload()
  }

  /** Whether the key may do that: what it may not is not shown. */
  may(...scopes: string[]): boolean {
    return scopes.some((scope) => this.me?.scopes.includes(scope))
  }

  private async findConsent(): Promise<void> {
    this.improve = null
    if (!this.may('conversations')) return
    const found = await api.consent().catch(() => null)
    this.improve = found?.improve ?? null
  }

  async agree(improve: boolean): Promise<void> {
    const before = this.improve
    this.improve = improve
    try {
      this.improve = (await api.agree(improve)).improve
    } catch (error) {
      this.improve = before
      this.reportProblem(error, null)
    }
  }

  /** What people call a model. */
  labelOf(model: string | null): string {
    return this.models.find(({ id }) => id === model)?.label ?? model ?? ''
  }

  /** Whether a model is known not to be there: it was deleted. A key for some models only does not see the others. */
  gone(model: string): boolean {
    return this.may('models') && this.me?.models === null && !this.models.some(({ id }) => id === model)
  }

  /** Fetches the models; gives the one to begin with. */
  async findModels(): Promise<string> {
    if (!this.may('models')) return ''
    const models = await api.models()
    this.models = models.data
    this.report = models.report
    return models.default ?? ''
  }

  async refresh(): Promise<void> {
    if (!this.may('conversations')) return
    const { data } = await api.conversations()
    this.conversations = data.filter((conversation) => conversation.title)
  }

  /** Opens what the address says. */
  async follow(): Promise<void> {
    this.watching = runOf(location.hash)
    this.place = placeOf(location.hash)
    if (this.watching !== null || this.place !== null) {
      this.problem = null
      return
    }
    const [, wanted, message] = /^#\/c\/([\w-]+)(?:\?m=([\w-]+))?$/.exec(location.hash) ?? []
    if (wanted === this.thread.conversation?.id) {
      if (message) this.thread.show(message)
      return
    }
    this.keep()
    this.problem = null
    if (!wanted) {
      this.thread = new Thread()
      return
    }
    const waiting = this.background.get(wanted)
    try {
      this.thread = waiting ?? new Thread(await api.conversation(wanted))
      const model = this.thread.conversation?.model
      if (message) this.thread.show(message)
      if (this.models.some((known) => known.id === model)) this.model = model ?? this.model
    } catch (error) {
      this.newChat()
      const gone = error instanceof ApiError && error.status === 404
      if (gone) this.problem = { message: t('notFound'), retry: null }
      else this.reportProblem(error, null)
    }
  }

  newChat(): void {
    this.keep()
    this.problem = null
    this.watching = this.place = null
    this.thread = new Thread()
    if (location.hash) history.pushState(null, '', location.pathname + location.search)
  }

  /** A new chat with a persona, and with its model if that is there. */
  begin(persona: Persona): void {
    this.newChat()
    this.thread.persona = persona
    if (this.models.some(({ id }) => id === persona.model)) this.model = persona.model ?? this.model
  }

  /** From another page: in the conversation that is open. */
  usePrompt(prompt: Prompt): void {
    this.prompt = prompt
    const open = this.thread.conversation?.id
    if (open) location.hash = `#/c/${open}`
    else this.newChat()
  }

  chooseModel(id: string): void {
    this.model = id
    localStorage.setItem(MODEL, id)
  }

  async send(text: string, parent?: string | null): Promise<void> {
    const thread = this.thread
    const asked = parent === undefined ? thread.ask(text, this.model) : thread.ask(text, this.model, parent)
    await this.settle(thread, asked)
  }

  async again(message: Parameters<Thread['again']>[0]): Promise<void> {
    await this.settle(this.thread, this.thread.again(message, this.model))
  }

  /** One that was put off goes on; otherwise another answer is written. */
  async compare(message: Message): Promise<void> {
    const thread = this.thread
    const open = thread.comparing(message)
    if (open) {
      open.later = false
      return
    }
    await this.settle(thread, thread.compare(message, this.model))
    const begun = thread.comparisons.at(-1)
    const failed = thread.failure === null && begun && has(begun, message) && !thread.comparing(message)
    if (failed && begun.choice === null && thread === this.thread) this.problem = { message: t('errorAnswer'), retry: null }
  }

  async remove(conversation: Conversation): Promise<void> {
    try {
      const open = this.thread.conversation?.id === conversation.id
      await api.remove(conversation.id)
      if (open) this.newChat()
      this.conversations = this.conversations.filter(({ id }) => id !== conversation.id)
      const act = () => void this.restore(conversation, open)
      this.toast = { text: t('deleted', { title: conversation.title }), label: t('undo'), act }
      await this.refresh()
    } catch (error) {
      this.reportProblem(error, null)
    }
  }

  /** Takes a deletion back. */
  private async restore(conversation: Conversation, open: boolean): Promise<void> {
    try {
      await api.restore(conversation.id)
      await this.refresh()
      if (open) location.hash = `#/c/${conversation.id}`
    } catch (error) {
      this.reportProblem(error, null)
    }
  }

  async rename(conversation: Conversation, title: string): Promise<void> {
    try {
      await api.rename(conversation.id, title)
      await this.refresh()
    } catch (error) {
      this.reportProblem(error, null)
    }
  }

  async save(conversation: Conversation, format: 'json' | 'markdown'): Promise<void> {
    const open = this.thread.conversation?.id === conversation.id
    try {
      const { save } = await import('./transfer')
      await save(conversation, format, (open && this.thread.path.findLast(({ id }) => !id.startsWith('draft-'))?.id) || null)
    } catch (error) {
      this.reportProblem(error, null)
    }
  }

  async openReport(run = 'quickstart'): Promise<void> {
    const tab = window.open('about:blank', '_blank')
    try {
      const { url } = await api.reportLink(run)
      if (tab) tab.location.href = new URL(url, location.href).href
    } catch (error) {
      tab?.close()
      this.reportProblem(error, null)
    }
  }

  reportProblem(error: unknown, retry: (() => void) | null): void {
    if (error instanceof ApiError && error.status === 401) {
      this.needsKey = true
      return
    }
    const unreachable = error instanceof ApiError && error.status === 0
    this.problem = { message: unreachable ? t('errorUnreachable') : String((error as Error).message), retry }
  }

  /** The sidebar and the address follow as soon as the server has begun; what failed is told. */
  private async settle(thread: Thread, running: Promise<unknown>): Promise<void> {
    this.problem = null
    thread.started = (conversation) => {
      this.conversations = [conversation, ...this.conversations.filter((other) => other.id !== conversation.id)]
      const address = `#/c/${conversation.id}`
      if (thread === this.thread && location.hash !== address) history.pushState(null, '', address)
    }
    await running
    const id = thread.conversation?.id
    if (id) this.background.delete(id)
    if (thread.failure && thread === this.thread) this.giveBack(thread.failure)
    await this.refresh().catch(() => undefined)
  }

  /** What could not be sent goes back into the composer. */
  private giveBack(failure: { text: string; error: unknown }): void {
    if (failure.text && !this.draft) this.draft = failure.text
    if (failure.error === null) return
    const retry = () => {
      const text = this.draft || failure.text
      this.draft = ''
      void this.send(text)
    }
    this.reportProblem(failure.error, failure.text ? retry : null)
  }

  private keep(): void {
    const id = this.thread.conversation?.id
    if (id && this.thread.running) this.background.set(id, this.thread)
  }
}

export const session = new Session()
