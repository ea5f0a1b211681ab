// Training runs: the list, and one that is watched. The server tells what is new; nothing is asked for twice.

import { api, ApiError } from './api'
import { session } from './session.svelte'
import type { Finding, Point, Run, RunEvent, RunWithRecipe, SampleLine } from './types'

const LIST_SECONDS = 4
const AGAIN_SECONDS = 2
/** Findings are told anew at most so often: they are about many steps. */
const FINDING_SECONDS = 5
/** Stages that learn from their own answers: of those something can be found. */
export const SAMPLING = ['ppo', 'grpo', 'rloo', 'best_of_n']
/** More points than a screen can show are fetched anew, thinned by the server. */
const MOST_POINTS = 1500

const pause = (seconds: number) => new Promise((resolve) => setTimeout(resolve, seconds * 1000))

class Watcher {
  runs = $state.raw<Run[] | null>(null)
  run = $state.raw<Run | null>(null)
  recipe = $state.raw<Record<string, unknown> | null>(null)
  points = $state.raw<Record<string, Point[]>>({})
  samples = $state.raw<Record<string, SampleLine[]>>({})
  findings = $state.raw<Record<string, Finding[]>>({})
  missing = $state(false)
  /** The connection is gone, and tried again. */
  lost = $state(false)
  private wanted = new Set<string>()
  /** The stages that are being asked about, and whether to ask once more. */
  private finding = new Map<string, boolean>()

  /** Keeps the list up to date until the signal. */
  async list(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        const { data } = await api.runs()
        if (signal.aborted) return
        this.runs = data
        this.lost = false
      } catch (error) {
        if (this.gaveUp(error)) return
      }
      await pause(LIST_SECONDS)
    }
  }

  /** Follows one run until the signal, through lost connections. */
  async follow(name: string, signal: AbortSignal): Promise<void> {
    this.run = this.recipe = null
    this.points = this.samples = this.findings = {}
    this.missing = this.lost = false
    this.wanted.clear()
    while (!signal.aborted) {
      try {
        const { recipe, ...run }: RunWithRecipe = await api.run(name)
        if (signal.aborted) return
        this.run = run
        this.recipe = recipe
        for await (const event of api.runEvents(name, signal)) {
          // What was written before the stream began is fetched after it did, so that no line falls between.
          this.lost = false
          this.take(name, event)
        }
      } catch (error) {
        if (signal.aborted) return
        this.missing = error instanceof ApiError && error.status === 404
        if (this.missing || this.gaveUp(error)) return
      }
      if (signal.aborted) return
      await pause(AGAIN_SECONDS)
      for (const stage of this.wanted) void this.load(name, stage)
    }
  }

  /** Curves and samples of a stage, once; then they grow by themselves. */
  show(name: string, stage: string): void {
    if (this.wanted.has(stage)) return
    this.wanted.add(stage)
    void this.load(name, stage)
  }

  private async load(name: string, stage: string): Promise<void> {
    try {
      const [metrics, samples] = await Promise.all([api.runMetrics(name, stage), api.runSamples(name, stage)])
      if (this.run?.name !== name) return
      const last = metrics.data.at(-1)?.step ?? -1
      const newer = (this.points[stage] ?? []).filter((point) => point.step > last)
      this.points = { ...this.points, [stage]: [...metrics.data, ...newer] }
      this.samples = { ...this.samples, [stage]: samples.data }
      void this.find(name, stage)
    } catch {
      this.wanted.delete(stage)
    }
  }

  /** What is found in a stage by now, and again if there was something new meanwhile. */
  private async find(name: string, stage: string): Promise<void> {
    if (!SAMPLING.includes(stage)) return
    const key = `${name}/${stage}`
    if (this.finding.has(key)) {
      this.finding.set(key, true)
      return
    }
    let again = true
    while (again && this.run?.name === name) {
      this.finding.set(key, false)
      try {
        const { data } = await api.runFindings(name, stage)
        if (this.run?.name === name) this.findings = { ...this.findings, [stage]: data }
      } catch {
        // The next steps ask again.
      }
      await pause(FINDING_SECONDS)
      again = this.finding.get(key) ?? false
    }
    this.finding.delete(key)
  }

  private take(name: string, event: RunEvent): void {
    if (event.name === 'error') return // the last one: whoever asks again is told why
    if (event.name === 'run') this.run = event.data
    else if (event.name === 'reset') {
      this.points = { ...this.points, [event.data.stage]: [] }
      if (this.wanted.has(event.data.stage)) void this.load(name, event.data.stage)
    } else if (event.name === 'samples') {
      const { stage, samples } = event.data
      const known = new Set(samples.map((line) => line.step))
      const earlier = (this.samples[stage] ?? []).filter((line) => !known.has(line.step))
      this.samples = { ...this.samples, [stage]: [...earlier, ...samples] }
    } else {
      const { stage, points } = event.data
      const first = points[0]?.step ?? 0
      const earlier = (this.points[stage] ?? []).filter((point) => point.step < first)
      this.points = { ...this.points, [stage]: [...earlier, ...points] }
      if (!this.wanted.has(stage)) return
      if (earlier.length > MOST_POINTS) void this.load(name, stage)
      else void this.find(name, stage)
    }
  }

  private gaveUp(error: unknown): boolean {
    if (error instanceof ApiError && error.status === 401) {
      session.reportProblem(error, null)
      return true
    }
    this.lost = true
    return false
  }
}

export const watcher = new Watcher()
