// What the console asks of /v1: users, projects, keys, usage, files, fine-tuning. Shapes: src/chatwheel/server/organization.py.

import { ApiError, authorization, call, id, json } from './api'
import type { Grader } from './graders'

export interface Limits {
  requests_per_minute: number | null
  tokens_per_minute: number | null
  monthly_budget: number | null
}

export interface User {
  id: string
  name: string
  role: 'admin' | 'member'
  added_at: number
  disabled_at: number | null
}

export interface Project extends Limits {
  id: string
  name: string
  created_at: number
  status: 'active' | 'archived'
}

export interface Member {
  id: string
  name: string
  role: 'owner' | 'member'
}

export interface ApiKey extends Limits {
  id: string
  name: string
  redacted_value: string
  owner: { user: { id: string } }
  scopes: string[]
  models: string[] | null
  created_at: number
  expires_at: number | null
  revoked_at: number | null
  last_used_at: number | null
}

export type NewApiKey = ApiKey & { value: string }

export interface KeyRequest extends Partial<Limits> {
  name: string
  user_id?: string
  scopes: string[]
  models: string[] | null
  expires_in: number | null
}

export interface Price {
  model: string
  input: number
  cached_input: number
  output: number
  training: number
}

export interface Bucket {
  start_time: number
  results: UsageResult[]
}

export interface UsageResult {
  model: string | null
  input_tokens?: number
  input_cached_tokens?: number
  output_tokens?: number
  num_model_requests?: number
  amount: { value: number }
}

export interface AuditLine {
  id: string
  type: string
  effective_at: number
  target: string | null
  project: { id: string } | null
  actor: { type: 'api_key' | 'session' | 'command_line'; user: { id: string } | null; ip_address: string | null }
  details: Record<string, unknown>
}

/** How many reports are fetched at once. */
export const REPORTS = 50

/** An answer that somebody reported. */
export interface Report {
  message_id: string
  reason: 'harmful' | 'private' | 'illegal' | 'spam' | 'other'
  comment: string | null
  created_at: number
  handled_at: number | null
  answer: string
  model: string | null
}

/** How the installation is. What ends in `_here` is of the server that was asked alone. */
export interface Health {
  version: string
  findings: ('no_worker' | 'disk_low' | 'many_errors' | 'backup_old')[]
  database: { kind: string; version: string; schema: string | null; bytes: number }
  disk: { home: string; free_bytes: number; total_bytes: number }
  processes: { id: string; kind: string; place: string; started_at: number; seen_at: number; alive: boolean; here: boolean }[]
  requests: {
    running: number
    waiting_here: number
    last_hour: { completed: number; cancelled: number; failed: number; error_rate: number | null }
  }
  models_here: { id: string; running: number; waiting: number; cache_share: number | null }[]
  jobs: { id: string; model: string; status: JobStatus; project_id: string; created_at: number; worker: string | null }[]
  backup: { created_at: number; file: string } | null
}

/** Days that things are kept; null is for ever. */
export interface Retention {
  chat_days: number | null
  audit_days: number | null
}

/** What a rule would delete now. */
export interface Due {
  chats: number
  audit: number
}

export interface StoredFile {
  id: string
  bytes: number
  created_at: number
  filename: string
  purpose: string
}

/** What was found in a file, line by line; the first of many errors only. */
export interface FileCheck {
  ok: boolean
  kind: string
  examples: number
  num_bytes: number
  errors: FileError[]
  num_errors: number
  warnings: (string | FileError)[]
  tokens: { prompt: number; trained: number; longest: number; too_long: number } | null
}

export interface FileError {
  line: number | null
  field: string | null
  message: string
}

export type Method = 'supervised' | 'dpo' | 'reinforcement'
export type JobStatus = 'validating_files' | 'queued' | 'running' | 'paused' | 'succeeded' | 'failed' | 'cancelled'

export interface Job {
  id: string
  created_at: number
  finished_at: number | null
  estimated_finish: number | null
  model: string
  fine_tuned_model: string | null
  status: JobStatus
  training_file: string
  validation_file: string | null
  result_files: string[]
  trained_tokens: number | null
  method: { type: string } & Record<string, unknown>
  seed: number
  error: { code: string; message: string; param: string | null } | null
  forecast?: Forecast | null
}

export interface Forecast {
  sentence: string
  examples?: number
  error?: number
  forecast?: number
  forecast_interval?: [number, number]
  target?: number
  needed?: number | null
  needed_interval?: [number | null, number | null]
  measured?: { examples: number; error: number; interval?: [number, number] }[]
  doubled?: { examples: number; error: number; interval: [number, number] | null }
  curve?: [number, number, number, number][]
}

export interface JobRequest {
  model: string
  training_file: string
  validation_file?: string
  suffix?: string
  seed?: number
  method: Record<string, unknown>
  /** Ours; it takes a validation file. */
  forecast?: boolean
}

export interface JobEvent {
  id: string
  created_at: number
  level: 'info' | 'warn' | 'error'
  message: string
  type: 'message' | 'metrics'
  data: ({ step: number } & Record<string, number | null>) | null
}

export interface Checkpoint {
  id: string
  created_at: number
  fine_tuned_model_checkpoint: string
  step_number: number
  metrics: Record<string, number | null>
}

export interface List<Item> {
  data: Item[]
  has_more: boolean
}

const organization = 'v1/organization'
const project = (name: string) => `${organization}/projects/${id(name)}`
const job = (name: string) => `v1/fine_tuning/jobs/${id(name)}`

function query(values: Record<string, string | number | string[] | null | undefined>): string {
  const all = new URLSearchParams()
  for (const [name, value] of Object.entries(values))
    for (const one of [value ?? []].flat()) all.append(name, String(one))
  return all.size ? `?${all}` : ''
}

export const platform = {
  users: () => json<List<User>>('GET', `${organization}/users`),
  createUser: (name: string, role: User['role']) => json<User>('POST', `${organization}/users`, { name, role }),
  changeUser: (user: string, changes: { role?: User['role']; disabled?: boolean }) =>
    json<User>('POST', `${organization}/users/${id(user)}`, changes),

  projects: () => json<List<Project>>('GET', `${organization}/projects`),
  createProject: (name: string) => json<Project>('POST', `${organization}/projects`, { name }),
  changeProject: (name: string, changes: Partial<Limits> & { name?: string }) =>
    json<Project>('POST', project(name), changes),
  archiveProject: (name: string) => json<Project>('POST', `${project(name)}/archive`),
  members: (name: string) => json<List<Member>>('GET', `${project(name)}/users`),
  setMember: (name: string, user_id: string, role: Member['role']) =>
    json<Member>('POST', `${project(name)}/users`, { user_id, role }),
  removeMember: (name: string, user: string) => json<unknown>('DELETE', `${project(name)}/users/${id(user)}`),

  keys: (name: string) => json<List<ApiKey>>('GET', `${project(name)}/api_keys`),
  createKey: (name: string, body: KeyRequest) => json<NewApiKey>('POST', `${project(name)}/api_keys`, body),
  rotateKey: (name: string, key: string, keep_seconds: number) =>
    json<NewApiKey>('POST', `${project(name)}/api_keys/${id(key)}/rotate`, { keep_seconds }),
  revokeKey: (name: string, key: string) => json<unknown>('DELETE', `${project(name)}/api_keys/${id(key)}`),

  usage: (start_time: number, project_ids: string[]) =>
    json<{ data: Bucket[] }>('GET', `${organization}/usage/completions${query({ start_time, bucket_width: '1d', group_by: ['model'], project_ids })}`),
  costs: (start_time: number, project_ids: string[]) =>
    json<{ data: Bucket[] }>('GET', `${organization}/costs${query({ start_time, bucket_width: '1d', group_by: ['model'], project_ids })}`),
  usageFile: async () => (await call('GET', `${organization}/usage.csv`)).blob(),

  prices: () => json<List<Price>>('GET', `${organization}/prices`),
  setPrice: (price: Omit<Price, 'cached_input'> & { cached_input: number | null }) =>
    json<Price>('POST', `${organization}/prices`, price),
  deletePrice: (model: string) => json<void>('DELETE', `${organization}/prices/${id(model)}`),
  audit: (after: string | null) => json<List<AuditLine>>('GET', `${organization}/audit_logs${query({ limit: 50, after })}`),
  settings: () => json<{ retention: Retention; due: Due }>('GET', `${organization}/settings`),
  due: ({ chat_days, audit_days }: Retention) =>
    json<{ due: Due }>('GET', `${organization}/settings/due${query({ chat_days, audit_days })}`),
  setSettings: (retention: Retention) =>
    json<{ retention: Retention; due: Due }>('PUT', `${organization}/settings`, { retention }),
  health: () => json<Health>('GET', `${organization}/health`),
  reports: (handled: boolean, offset: number) =>
    json<{ data: Report[] }>('GET', `api/reports${query({ handled: String(handled), limit: REPORTS, offset })}`),
  handleReport: ({ message_id, reason }: Report) => json<void>('POST', `api/reports/${id(message_id)}/${id(reason)}/handled`),

  files: (purpose: string | null = 'fine-tune', after: string | null = null) =>
    json<List<StoredFile>>('GET', `v1/files${query({ purpose, limit: 100, after })}`),
  deleteFile: (file: string) => json<unknown>('DELETE', `v1/files/${id(file)}`),
  fileContent: async (file: string) => (await call('GET', `v1/files/${id(file)}/content`)).blob(),
  check: (file: string, method: Method | Record<string, unknown>, model: string) =>
    json<FileCheck>('POST', `v1/files/${id(file)}/check`, { method, model }),
  validateGrader: (grader: unknown) =>
    json<{ grader: Grader }>('POST', 'v1/fine_tuning/alpha/graders/validate', { grader }),
  deleteModel: (model: string) => json<unknown>('DELETE', `v1/models/${model.split('/').map(id).join('/')}`),

  jobs: (after: string | null = null) => json<List<Job>>('GET', `v1/fine_tuning/jobs${query({ limit: 20, after })}`),
  job: (name: string) => json<Job>('GET', job(name)),
  createJob: (body: JobRequest) => json<Job>('POST', 'v1/fine_tuning/jobs', body),
  jobAction: (name: string, action: 'cancel' | 'pause' | 'resume') => json<Job>('POST', `${job(name)}/${action}`),
  jobEvents: (name: string, after: string | null) =>
    json<List<JobEvent>>('GET', `${job(name)}/events${query({ limit: 100, after })}`),
  checkpoints: (name: string) => json<List<Checkpoint>>('GET', `${job(name)}/checkpoints${query({ limit: 100 })}`),
}

/** Sends a file for fine-tuning. told: the share that has been sent, as it goes, which `fetch` cannot tell. */
export function upload(file: File, told: (share: number) => void, signal: AbortSignal): Promise<StoredFile> {
  const form = new FormData()
  form.append('purpose', 'fine-tune')
  form.append('file', file)
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest()
    request.open('POST', 'v1/files')
    for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value)
    request.responseType = 'json'
    request.upload.onprogress = (event) => told(event.lengthComputable ? event.loaded / event.total : 0)
    request.onload = () => {
      const error = request.response?.error ?? {}
      if (request.status < 300 && request.response) resolve(request.response as StoredFile)
      else reject(new ApiError(error.message ?? request.statusText, request.status, error.code ?? null, error.param ?? null))
    }
    request.onerror = () => reject(new ApiError('', 0, 'unreachable'))
    request.onabort = () => reject(new DOMException('', 'AbortError'))
    signal.addEventListener('abort', () => request.abort())
    request.send(form)
  })
}

/** Hands something to the browser as a download. */
export function save(blob: Blob, name: string): void {
  const link = document.createElement('a')
  link.href = URL.createObjectURL(blob)
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000)
}
