// What the server's /api sends: see src/chatwheel/server/shapes.py.

export type Role = 'system' | 'user' | 'assistant'
export type Status = 'complete' | 'partial' | 'error'
export type RatingValue = -1 | 0 | 1

export interface Rating {
  value: RatingValue
  comment: string | null
  reasons: string[]
}

export type Choice = 'first' | 'second' | 'tie' | 'both_bad'

/** Two answers to a question, in the order in which they are shown. */
export interface Comparison {
  id: string
  first_id: string
  second_id: string
  choice: Choice | null
  /** Put off until the page is opened again; false: asked for since then. Not kept by the server. */
  later?: boolean
  /** Who wrote the two, once it is decided. */
  models?: (string | null)[] | null
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
  /** What the user says that it should have been. */
  correction?: string | null
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

/** A system prompt with a name; null: as without a persona. */
export interface Persona {
  id: string
  name: string
  system_prompt: string
  model: string | null
  temperature: number | null
  max_tokens: number | null
}

/** What a conversation began with. */
export interface Brief {
  persona: string | null
  system_prompt: string
}

export interface ConversationWithMessages extends Conversation {
  brief: Brief | null
  messages: Message[]
  comparisons: Comparison[]
}

/** message_id: null where the title was found. snippet: plain, found, plain, found, ..., plain. */
export interface SearchHit {
  conversation: Conversation
  message_id: string | null
  role: Role | null
  snippet: string[]
}

export interface Model {
  id: string
  label: string
  stage: 'base' | 'sft' | 'ppo' | 'grpo' | 'rloo' | 'best_of_n' | 'dpo' | 'kto' | 'other'
  group: string
  created: number
}

export interface ModelList {
  data: Model[]
  default: string | null
  report: string | null
  version: string
}

/** Who asks, and what they may: GET /v1/me. */
export interface Me {
  user: { id: string; name: string; role: 'admin' | 'member' }
  project: { id: string; name: string }
  /** null: this machine's own user, without a key; or the key that the server was started with. */
  api_key_id: string | null
  scopes: string[]
  models: string[] | null
}

export type AnswerEvent =
  | { name: 'start'; data: { conversation: Conversation; message: Message; user_message?: Message; comparison?: Comparison } }
  | { name: 'note'; data: { left_out: number } }
  | { name: 'delta'; data: { text: string } }
  | { name: 'error'; data: { error: { message: string; type: string; code: string | null } } }
  | { name: 'done'; data: { id: string; status: Status } }

// What /v1/runs sends: see src/chatwheel/store/runs.py.

export type RunState = 'waiting' | 'running' | 'done' | 'interrupted'
export type StageName = 'data' | 'tokenizer' | 'pretrain' | 'sft' | 'ranking' | 'reward' | Sampling | 'dpo' | 'kto'

/** Stages that learn from their own answers. */
export type Sampling = 'ppo' | 'grpo' | 'rloo' | 'best_of_n'

/** Numbers of a step, which counts from 0. */
export type Point = { step: number } & Record<string, number>

export interface Stage {
  name: StageName
  state: RunState
  step: number
  steps: number | null
  seconds: number | null
  remaining: number | null
  seconds_per_step?: number
  tokens_per_second?: number | null
  share_of_peak?: number | null
  metrics?: Record<string, number>
  result?: Record<string, unknown>
}

export interface Run {
  name: string
  state: RunState
  created: number
  updated: number
  stages: Stage[]
  examining: string | null
  command: string | null
  directory: string | null
  report: boolean
}

export interface RunWithRecipe extends Run {
  recipe: Record<string, unknown>
}

export interface Sample {
  prompt: string
  text: string
  reward?: number
}

export interface SampleLine {
  step: number
  samples: Sample[]
  error: string | null
}

/** What looks wrong, or is good to know, from a step on. */
export interface Finding {
  rule: string
  level: 'warning' | 'information'
  step: number
  text: Record<'en' | 'zh', string>
  advice: Record<'en' | 'zh', string>
}

/** The steps with which rollouts begin, and what the judges liked best and least in one of them. */
export interface Rollout {
  steps: number[]
  data: { step: number; best: Sample[]; worst: Sample[] } | null
}

export type RunEvent =
  | { name: 'run'; data: Run }
  | { name: 'metrics'; data: { stage: string; points: Point[] } }
  | { name: 'samples'; data: { stage: string; samples: SampleLine[] } }
  | { name: 'reset'; data: { stage: string } }
  | { name: 'error'; data: { error: { message: string; code: string | null } } }
