// The arena, as the server has it: src/chatwheel/server/routes/arena.py.

import { call, events, id, json } from './api'

export const SIDES = ['left', 'right'] as const
export type Side = (typeof SIDES)[number]
export const CHOICES = ['left', 'right', 'tie', 'both_bad'] as const
export type BattleChoice = (typeof CHOICES)[number]
export const TOPICS = ['question', 'writing', 'translation', 'maths', 'code', 'small_talk', 'other'] as const
export type Topic = (typeof TOPICS)[number]

export interface Battle {
  id: string
  prompt: string
  choice: BattleChoice | null
  models: Record<Side, string> | null
  answers: Record<Side, string>
}

export interface Line {
  model: string
  rating: number | null
  interval: [number, number] | null
  rank: [number, number] | null
  too_few: boolean
  battles: number
  wins: number
  ties: number
  both_bad: number
}

export interface Board {
  battles: number
  models: Line[]
  pairs: { models: [string, string]; battles: number; wins: [number, number]; ties: number }[]
  left_first: { points: number; interval: [number, number] } | null
  languages: Record<string, number>
  topics: Partial<Record<Topic, number>>
}

export type BattleEvent =
  | { name: 'start'; data: { id: string } }
  | { name: 'done'; data: { id: string } }
  | { name: 'delta'; data: Record<Side, string> }
  | { name: 'error'; data: { error: { message: string; code: string | null } } }

const base = 'v1/arena'

export const arena = {
  fight: async function* (prompt: string, signal: AbortSignal): AsyncGenerator<BattleEvent> {
    yield* events<BattleEvent>(await call('POST', `${base}/battles`, { prompt }, signal))
  },
  choose: (battle: string, choice: BattleChoice) => json<Battle>('PUT', `${base}/battles/${id(battle)}/choice`, { choice }),
  board: (language: string, topic: string) => {
    const only = new URLSearchParams(Object.entries({ language, topic }).filter(([, value]) => value))
    return json<Board>('GET', `${base}/leaderboard?${only}`)
  },
}

/** The share of battles that the one has won against the other, ties being half; null where they have not met. */
export function share(board: Board, one: string, other: string): { share: number; battles: number } | null {
  for (const { models, wins, ties, battles } of board.pairs) {
    const at = models.indexOf(one)
    if (at >= 0 && models[1 - at] === other) return { share: (wins[at]! + ties / 2) / battles, battles }
  }
  return null
}
