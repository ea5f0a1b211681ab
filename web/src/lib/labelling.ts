// The labelling room, as the server has it: src/chatwheel/server/labelling.py; and what a ranking is while it is made.

import { call, id, json } from './api'

export const KINDS = ['rank', 'rate', 'reply', 'prompt'] as const
export type Kind = (typeof KINDS)[number]

export interface LabelQuestion {
  name: string
  kind: 'flag' | 'scale'
  meaning: string
  points: number
  low: string
  high: string
}

export interface Queue {
  id: string
  name: string
  kind: Kind
  guidelines: string
  labellers: number
  patience: number
  labels: LabelQuestion[]
  closed_at: number | null
  manages: boolean
  formats: string[]
  progress: { tasks: number; done: number; judgements: number; wanted: number; mine: number; waiting: number; reported: number }
}

export interface Turn {
  role: 'system' | 'user' | 'assistant'
  content: string
}

export type Labels = Record<string, boolean | number>

/** What a labeller says: one of the three. */
export interface Said {
  ranks?: number[] | null
  labels?: Labels | null
  text?: string | null
}

export interface Draft {
  ranks?: (number | null)[]
  labels?: Labels
  text?: string
}

export interface Assignment {
  id: string
  queue_id: string
  kind: Kind
  state: 'open' | 'done' | 'skipped' | 'reported' | 'expired'
  messages: Turn[]
  answers: string[]
  labels: LabelQuestion[]
  draft: Draft | null
  said: Said | null
}

export interface Agreement {
  alpha: number | null
  interval: [number | null, number | null]
  observed: number | null
  items: number
}

export interface LabellerLine {
  id: string
  name: string
  judged: number
  skipped: number
  reported: number
  seconds: number | null
  accuracy: number | null
  verdict: 'ok' | 'biased' | 'random' | 'adversarial' | null
  reliability: number | null
  agreement: number | null
  comparisons: number | null
  biases: { feature: string; towards: boolean; share: number }[]
}

export interface QueueReport {
  agreement: Agreement | null
  labels: { name: string; kind: string; agreement: Agreement | null }[]
  labellers: LabellerLine[]
  pairwise: { one: string; other: string; same: number; shared: number }[]
  disputes: number
  seconds: number | null
  problem: string | null
}

export interface Task {
  id: string
  messages: Turn[]
  answers: { content: string; model: string | null }[]
}

export interface Dispute extends Task {
  agreement: number
  judgements: { labeller: string; ranks: number[] | null; labels: Labels | null }[]
}

export interface Complaint extends Task {
  reports: { reason: string; comment: string | null; created_at: number }[]
}

export interface Filled {
  added: number
  already: number
  alike?: number
  judgements?: number
  passed_over?: Record<string, number>
}

const base = 'v1/labelling'
const queue = (name: string, rest = '') => `${base}/queues/${id(name)}${rest}`
const assignment = (name: string, rest = '') => `${base}/assignments/${id(name)}${rest}`

export const labelling = {
  queues: () => json<{ data: Queue[] }>('GET', `${base}/queues`),
  queue: (name: string) => json<Queue>('GET', queue(name)),
  create: (body: unknown) => json<Queue>('POST', `${base}/queues`, body),
  change: (name: string, body: unknown) => json<Queue>('PATCH', queue(name), body),
  next: (name: string) => json<Assignment | null>('POST', queue(name, '/next')),
  last: (name: string) => json<Assignment | null>('GET', queue(name, '/last')),
  keep: (name: string, draft: Draft) => json<Assignment>('PUT', assignment(name, '/draft'), draft),
  judge: (name: string, said: Said, seconds: number) =>
    json<Assignment>('POST', assignment(name, '/judgement'), { ...said, seconds }),
  skip: (name: string) => json<void>('POST', assignment(name, '/skip'), {}),
  report: (name: string, reason: string, comment: string) =>
    json<void>('POST', assignment(name, '/report'), { reason, comment: comment.trim() || null }),
  add: (name: string, body: unknown) => json<Filled>('POST', queue(name, '/tasks'), body),
  bring: (name: string, file: string, content: string) =>
    json<Filled>('POST', queue(name, '/import'), { name: file, content }),
  sample: (name: string, body: unknown) => json<Filled>('POST', queue(name, '/sample'), body),
  results: (name: string) => json<QueueReport>('GET', queue(name, '/report')),
  disputes: (name: string) => json<{ data: Dispute[]; total: number }>('GET', queue(name, '/adjudication')),
  decide: (task: string, said: Said) => json<unknown>('POST', `${base}/tasks/${id(task)}/decision`, said),
  complaints: (name: string) => json<{ data: Complaint[] }>('GET', queue(name, '/reported')),
  settle: (task: string, state: 'open' | 'withdrawn') => json<unknown>('POST', `${base}/tasks/${id(task)}/state`, { state }),
  download: async (name: string, format: string): Promise<void> => {
    const response = await call('GET', queue(name, `/export?format=${id(format)}`))
    const link = document.createElement('a')
    link.href = URL.createObjectURL(await response.blob())
    link.download = `${name}-${format}.jsonl`
    link.click()
    setTimeout(() => URL.revokeObjectURL(link.href), 1000)
  },
}

export type Ranks = (number | null)[]

/** The cards as they lie: those with a place by it, the others behind, each as they were shown. */
export function laid(ranks: Ranks): number[] {
  const place = (card: number) => ranks[card] ?? ranks.length + 1
  return ranks.map((_, card) => card).sort((a, b) => place(a) - place(b) || a - b)
}

/** Of groups of cards that tie, the places: 1, 2, 2, 4. */
function placed(tiers: number[][], size: number): Ranks {
  const ranks: Ranks = Array(size).fill(null)
  let place = 1
  for (const tier of tiers) {
    for (const card of tier) ranks[card] = place
    place += tier.length
  }
  return ranks
}

/** Groups of cards that tie; a card without a place is one of its own, where it lies. */
function tiersOf(ranks: Ranks): number[][] {
  const tiers: number[][] = []
  for (const card of laid(ranks)) {
    const last = tiers.at(-1)
    const rank = ranks[card]
    if (last && rank !== null && ranks[last[0]!] === rank) last.push(card)
    else tiers.push([card])
  }
  return tiers
}

/** A card one step up or down: out of its tie, or past the next group. */
export function stepped(ranks: Ranks, card: number, up: boolean): Ranks {
  const tiers = tiersOf(ranks)
  const at = tiers.findIndex((tier) => tier.includes(card))
  const tier = tiers[at]!
  const rest = tier.filter((other) => other !== card)
  if (rest.length) tiers.splice(at, 1, ...(up ? [[card], rest] : [rest, [card]]))
  else {
    const to = Math.min(Math.max(at + (up ? -1 : 1), 0), tiers.length - 1)
    tiers.splice(at, 1)
    tiers.splice(to, 0, [card])
  }
  return placed(tiers, ranks.length)
}

/** A card laid before the card that lies at `at` (all of them: behind the last one). */
export function moved(ranks: Ranks, card: number, at: number): Ranks {
  const order = laid(ranks)
  const before = order.slice(at).find((other) => other !== card)
  const tiers = tiersOf(ranks).map((tier) => tier.filter((other) => other !== card)).filter((tier) => tier.length)
  const index = before === undefined ? tiers.length : tiers.findIndex((tier) => tier.includes(before))
  const tier = tiers[index]
  const inside = tier && before !== undefined ? tier.indexOf(before) : 0
  // Between two that tie it parts them.
  if (tier && inside > 0) tiers.splice(index, 1, tier.slice(0, inside), [card], tier.slice(inside))
  else tiers.splice(index, 0, [card])
  return placed(tiers, ranks.length)
}

/** A card laid on another one: they tie. */
export function joined(ranks: Ranks, card: number, other: number): Ranks {
  const tiers = tiersOf(ranks).map((tier) => tier.filter((one) => one !== card)).filter((tier) => tier.length)
  tiers.find((tier) => tier.includes(other))?.push(card)
  return placed(tiers, ranks.length)
}

/** A digit: that place, beside whoever has it. */
export function given(ranks: Ranks, card: number, place: number): Ranks {
  return ranks.map((rank, other) => (other === card ? place : rank))
}
