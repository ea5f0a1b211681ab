// What the server's /api sends: see src/chatwheel/server/shapes.py.

export type Role = 'system' | 'user' | 'assistant'
export type Status = 'complete' | 'partial' | 'error'
export type RatingValue = -1 | 0 | 1

export interface Rating {
  value: RatingValue
  comment: string | null
}

export interface Message {
  id: string
  parent_id: string | null
  role: Role
  content: string
  model: string | null
  status: Status
  created_at: number
  rating: Rating | null
  /** Why an answer ended early, in words for people. Not kept by the server. */
  problem?: string
}

export interface Conversation {
  id: string
  title: string
  model: string
  language: string | null
  created_at: number
  updated_at: number
}

export interface ConversationWithMessages extends Conversation {
  messages: Message[]
}

export interface Model {
  id: string
  label: string
  stage: 'base' | 'sft' | 'ppo' | 'other'
  group: string
  created: number
}

export interface ModelList {
  data: Model[]
  default: string | null
  report: string | null
  version: string
}

export type AnswerEvent =
  | { name: 'start'; data: { conversation: Conversation; message: Message; user_message?: Message } }
  | { name: 'note'; data: { left_out: number } }
  | { name: 'delta'; data: { text: string } }
  | { name: 'error'; data: { error: { message: string; type: string; code: string | null } } }
  | { name: 'done'; data: { id: string; status: Status } }
