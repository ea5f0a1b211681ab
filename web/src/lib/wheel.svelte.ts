// The wheel that is watched: asked for often while something is under way, and seldom otherwise.

import { api, ApiError } from './api'
import { session } from './session.svelte'
import type { Run } from './types'
import { calls, underWay, type Deployment, type Lineage, type Turn, type WheelView } from './wheel'

const BUSY_SECONDS = 2
const IDLE_SECONDS = 20

class Wheel {
  view = $state.raw<WheelView | null>(null)
  deployments = $state.raw<Deployment[]>([])
  lineage = $state.raw<Lineage | null>(null)
  /** Of the turn that is under way, how far its stages are. */
  run = $state.raw<Run | null>(null)
  /** The connection is gone, and tried again. */
  lost = $state(false)
  /** Everything was loaded while the loop waited: it waits anew, as long as is right now. */
  private touched = false
  private wake: () => void = () => {}

  get turns(): Turn[] {
    return this.view?.turns ?? []
  }

  get active(): Turn | null {
    return this.turns.find(underWay) ?? null
  }

  /** Until the signal, through lost connections. */
  async follow(signal: AbortSignal): Promise<void> {
    let whole = true
    while (!signal.aborted) {
      try {
        if (whole || !this.busy || (await this.changed())) await this.load()
        whole = this.lost = false
      } catch (error) {
        if (signal.aborted) return
        if (error instanceof ApiError && error.status > 0 && error.status < 500) return session.reportProblem(error, null)
        whole = this.lost = true
      }
      do {
        this.touched = false
        await this.pause(this.busy || this.lost ? BUSY_SECONDS : IDLE_SECONDS, signal)
      } while (this.touched && !signal.aborted)
    }
  }

  /** Everything anew, after something was done. */
  async load(): Promise<void> {
    const [view, deployments, lineage] = await Promise.all([calls.view(), calls.deployments(), calls.lineage()])
    this.view = view
    this.deployments = deployments.data
    this.lineage = lineage
    await this.look()
    this.touched = true
    this.wake()
  }

  private get busy(): boolean {
    return this.active !== null || this.view?.forecast.state === 'running'
  }

  /** Asks only for what is under way; whether it has come to something else. */
  private async changed(): Promise<boolean> {
    const { active, view } = this
    const [turn, forecast] = await Promise.all([
      active && calls.turn(active.name),
      view?.forecast.state === 'running' ? calls.forecast() : null,
    ])
    if (view !== this.view || !view) return false
    this.view = {
      ...view,
      forecast: forecast ?? view.forecast,
      turns: view.turns.map((one) => (one.name === turn?.name ? { ...one, ...turn } : one)),
    }
    await this.look()
    return (turn !== null && turn.state !== active?.state) || (forecast !== null && forecast.state !== 'running')
  }

  /** How far the stages of the latest turn are; the turn itself goes on where that cannot be told. */
  private async look(): Promise<void> {
    const turn = this.turns[0]
    this.run = turn && turn.state !== 'done' && session.may('runs') ? await api.run(turn.name).catch(() => null) : null
  }

  private pause(seconds: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer)
        signal.removeEventListener('abort', done)
        resolve()
      }
      const timer = setTimeout(done, seconds * 1000)
      signal.addEventListener('abort', done)
      this.wake = done
    })
  }
}

export const wheel = new Wheel()
