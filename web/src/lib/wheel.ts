// The wheel, as the server has it: src/chatwheel/server/routes/wheel.py; and what follows from it.

import { id, json } from './api'
import { percent } from './format'
import { locale } from './i18n.svelte'
import type { Forecast } from './platform'
import type { Run, RunState } from './types'

export const ARRIVED = ['ratings', 'comparisons', 'corrections', 'rankings', 'reports', 'people'] as const
export const BY_DAY = ['ratings', 'comparisons', 'corrections', 'rankings'] as const

export type Interval = [number, number]
export type TurnState = 'waiting' | 'running' | 'stopped' | 'failed' | 'done'
export type VerdictName = 'better' | 'not_shown' | 'worse' | 'no_judge'

export interface Answering {
  model: string
  share: number
  started_at: number
}

export interface Material {
  demonstrations: number
  corrections: number
  rankings: number
  judging: number
  praised: number
  prompts: number
  people: number
  languages: Record<string, number>
}

export interface Check {
  name: 'preferred' | 'praised' | 'examination' | 'safety'
  /** Of comparisons that the candidate wins, ties being half. */
  rate: number
  interval: Interval
  pairs: number
  words: string
  details: Record<string, unknown>
  better: boolean
  worse: boolean
}

export interface Verdict {
  candidate: string
  current: string
  verdict: VerdictName
  passed: boolean
  words: string
  checks: Check[]
  judge: { rankings?: number; held_out?: number; accuracy?: number | null; interval?: Interval; witnesses?: Witness[] }
  /** Why nobody can judge. */
  reason: 'judge' | 'witnesses' | 'few' | null
  /** Prompts that would tell. */
  needed: number | null
}

/** What people said otherwise: how often the judge says the same. */
export interface Witness {
  name: 'corrections' | 'thumbs' | 'earlier'
  rate: number
  interval: Interval
  cases: number
  words: string
  contradicts: boolean
}

export interface Turn {
  name: string
  state: TurnState
  doing: string | null
  /** At its next step. */
  stopping: boolean
  stages: string[]
  current: string
  candidate: string
  material: Material
  verdict: Verdict | null
  error: string | null
  begun_at: number
  ended_at: number | null
  begun_by: string | null
  deployments: { share: number; started_at: number; ended_at: number | null; outcome: Outcome | null }[]
}

export type Outcome = 'promoted' | 'replaced' | 'rolled_back'

export interface ReadinessItem {
  name: 'rankings' | 'demonstrations' | 'agreement' | 'coverage' | 'forecast'
  ok: boolean | null
  value: number | null
  least: number | null
  words: string
  details: { interval?: Interval; questions?: number; rankings?: number; error?: number; doubled?: number; old?: boolean }
}

export interface WheelForecast {
  state: 'none' | 'running' | 'done' | 'failed'
  words?: string
  model?: string | null
  rankings?: number | null
  made_at?: number | null
  /** Of the same model and material as now. */
  fresh?: boolean
  points?: { rankings: number; error: number; interval: Interval | null }[]
  curve?: { rankings: number; low: number; error: number; high: number }[]
  /** before: the error with as many as there are, from the curve. */
  doubled?: { rankings: number; before: number; error: number; interval: Interval | null } | null
  error?: string | null
}

export interface Thumbs {
  model: string
  /** The share of thumbs up. */
  up: number | null
  count: number
}

/** What ratings say of the newest model beside the one before. */
export interface Ratings {
  words: string
  worse: boolean
  new: Thumbs
  old: Thumbs
  p: number
}

export interface WheelView {
  current: Answering | null
  candidate: Answering | null
  rollback: Ratings | null
  since: { turn: string | null; at: number | null }
  arrived: Record<(typeof ARRIVED)[number], { total: number; new: number }>
  days: ({ day: string } & Record<(typeof BY_DAY)[number], number>)[]
  material: Material
  readiness: { ready: boolean; words: string; items: ReadinessItem[] }
  forecast: WheelForecast
  turns: Turn[]
}

export interface LineageNode {
  id: string
  kind: 'model' | 'run' | 'data' | 'people'
  label: string
  words: string
  at: number | null
  model?: string | null
  run?: string | null
  deployed?: number | null
  verdict?: VerdictName | null
  stage?: string | null
  source?: 'people' | 'world' | 'files'
  rankings?: number
  demonstrations?: number
  files?: string[]
  people?: number
  prompts?: number
}

export interface Lineage {
  nodes: LineageNode[]
  edges: { from: string; to: string }[]
}

export interface Deployment {
  id: number
  model: string
  share: number
  started_at: number
  ended_at: number | null
  outcome: Outcome | null
}

export interface NewTurn {
  name?: string
  model?: string
  changes?: Record<string, unknown>
  everybody?: boolean
}

const base = 'v1/wheel'
const turn = (name: string, rest = '') => `${base}/turns/${id(name)}${rest}`

export const calls = {
  view: () => json<WheelView>('GET', base),
  makeForecast: () => json<WheelForecast>('POST', `${base}/forecast`),
  forecast: () => json<WheelForecast>('GET', `${base}/forecast`),
  begin: (body: NewTurn) => json<Turn>('POST', `${base}/turns`, body),
  turn: (name: string) => json<Turn & { recipe?: Record<string, unknown> }>('GET', turn(name)),
  stop: (name: string) => json<Turn>('POST', turn(name, '/stop')),
  resume: (name: string) => json<Turn>('POST', turn(name, '/resume')),
  promote: (name: string, share: number, anyway: boolean) =>
    json<Deployment>('POST', turn(name, '/promote'), { share, anyway }),
  lineage: () => json<Lineage>('GET', `${base}/lineage`),
  deployments: () => json<{ data: Deployment[] }>('GET', 'v1/deployments'),
  deploy: (model: string, share: number) => json<Deployment>('POST', 'v1/deployments', { model, share }),
  rollback: () => json<unknown>('POST', 'v1/deployments/rollback'),
}

export function underWay({ state }: Turn): boolean {
  return state === 'waiting' || state === 'running'
}

/** In whole hundredths, which is what intervals leave of it; on one line. */
export function share(value: number): string {
  return percent(Math.round(value * 100) / 100).replace(' ', '\u00a0')
}

/** One, another and a third. */
export function listed(names: string[]): string {
  return new Intl.ListFormat(locale.language === 'zh' ? 'zh-CN' : 'en-GB', { type: 'conjunction' }).format(names)
}

export interface Step {
  name: string
  state: RunState
}

/** A turn's stages as steps. run: what the run itself says, if it is known. */
export function stepsOf(turn: Turn, run: Run | null): Step[] {
  const names = turn.stages
  const at = turn.doing === null ? -1 : names.indexOf(turn.doing)
  const broken = turn.state === 'stopped' || turn.state === 'failed'
  return names.map((name, i): Step => {
    if (turn.state === 'done') return { name, state: 'done' }
    if (at < 0) return { name, state: run?.stages.find((stage) => stage.name === name)?.state ?? 'waiting' }
    if (i !== at) return { name, state: i < at ? 'done' : 'waiting' }
    return { name, state: broken ? 'interrupted' : 'running' }
  })
}

/** What a rollback goes back to, as `deployments.before` has it: the last one that answered all and was not taken back. */
export function before(current: Answering, history: Deployment[]): string | null {
  const now = history.find(({ model, share, ended_at }) => model === current.model && share === 1 && ended_at === null)
  const earlier = history
    .filter(({ id, share, outcome, model }) => share === 1 && outcome === 'replaced' && model !== current.model && id < (now?.id ?? Infinity))
    .sort((one, other) => other.id - one.id)
  return earlier[0]?.model ?? null
}

/** As the chart of the console wants it. */
export function drawn(forecast: WheelForecast): Forecast {
  const { points = [], curve = [], doubled } = forecast
  return {
    sentence: forecast.words ?? '',
    measured: points.map(({ rankings, error, interval }) => ({ examples: rankings, error, ...(interval ? { interval } : {}) })),
    curve: curve.map(({ rankings, low, error, high }) => [rankings, low, error, high]),
    ...(doubled ? { doubled: { examples: doubled.rankings, error: doubled.error, interval: doubled.interval } } : {}),
  }
}
