// A fine-tuning job that is watched: itself, its events, its checkpoints.

import { ApiError } from './api'
import { platform, type Checkpoint, type Job, type JobEvent, type Method } from './platform'
import { session } from './session.svelte'
import { c } from './words/console'

export const METHODS: Method[] = ['supervised', 'dpo', 'reinforcement']
const AGAIN_SECONDS = 2
/** Beyond these the oldest are left out. */
const MOST_EVENTS = 5000

export function ended(job: Job): boolean {
  return ['succeeded', 'failed', 'cancelled'].includes(job.status)
}

/** Its method's name in the chosen language; one that the page does not know has OpenAI's. */
export function methodOf({ method }: Job): string {
  return METHODS.find((one) => one === method.type) ? c(method.type as Method) : method.type
}

export class JobWatch {
  job = $state.raw<Job | null>(null)
  /** The newest first. */
  events = $state.raw<JobEvent[]>([])
  checkpoints = $state.raw<Checkpoint[]>([])
  missing = $state(false)
  lost = $state(false)

  constructor(readonly name: string) {}

  /** Follows it to its end or the signal, through lost connections. */
  async follow(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        // The job first: what is told before its end is then among the events.
        const job = await platform.job(this.name)
        await this.look()
        if (signal.aborted) return
        this.job = job
        this.lost = this.missing = false
        if (ended(job)) {
          if (job.status === 'succeeded') await session.findModels()
          return
        }
      } catch (error) {
        if (signal.aborted) return
        if (error instanceof ApiError && error.status > 0) {
          this.missing = error.status === 404
          if (!this.missing) session.reportProblem(error, null)
          return
        }
        this.lost = true
      }
      await new Promise((resolve) => setTimeout(resolve, AGAIN_SECONDS * 1000))
    }
  }

  /** The events since the last one that is known, and the checkpoints. */
  private async look(): Promise<void> {
    const [fresh, { data }] = await Promise.all([this.fresh(), platform.checkpoints(this.name)])
    if (fresh.length) this.events = [...fresh, ...this.events]
    const more = data.length > this.checkpoints.length
    this.checkpoints = data
    if (more && data.some((one) => session.gone(one.fine_tuned_model_checkpoint))) await session.findModels()
  }

  private async fresh(): Promise<JobEvent[]> {
    const known = new Set(this.events.map(({ id }) => id))
    const found: JobEvent[] = []
    let after: string | null = null
    while (found.length < MOST_EVENTS) {
      const page: { data: JobEvent[]; has_more: boolean } = await platform.jobEvents(this.name, after)
      const unknown = page.data.filter(({ id }) => !known.has(id))
      found.push(...unknown)
      if (!page.has_more || unknown.length < page.data.length) break
      after = page.data.at(-1)?.id ?? null
    }
    return found
  }
}
