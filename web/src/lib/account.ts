// Who is signed in, and how: see src/chatwheel/server/routes/sign_in.py.

import { id, json, setCsrf } from './api'

export interface Account {
  /** local: this machine's own user, as long as nobody is asked. null: nobody. */
  by: 'password' | 'key' | 'local' | null
  id: string | null
  user: { id: string; name: string; role: 'admin' | 'member' } | null
  csrf_token: string | null
  /** The password is a temporary one, which opens nothing else. */
  must_change: boolean
  has_password: boolean
  /** Whether anybody signs in here by a password. */
  passwords: boolean
}

export interface SessionLine {
  id: string
  created_at: number
  seen_at: number
  user_agent: string | null
  ip_address: string | null
  current: boolean
}

async function told(asked: Promise<Account>): Promise<Account> {
  const account = await asked
  setCsrf(account.csrf_token)
  return account
}

export const account = {
  find: () => told(json<Account>('GET', 'v1/session')),
  signIn: (name: string, password: string) => told(json<Account>('POST', 'v1/session', { name, password })),
  signOut: () => json<void>('DELETE', 'v1/session'),
  signOutEverywhere: () => json<void>('DELETE', 'v1/sessions'),
  sessions: () => json<{ data: SessionLine[] }>('GET', 'v1/sessions'),
  change: (current: string | null, password: string) =>
    told(json<Account>('PUT', 'v1/password', { ...(current === null ? {} : { current }), password })),
  reset: (user: string) =>
    json<{ value: string }>('POST', `v1/organization/users/${id(user)}/password`),
}

/** A browser's name and its system's, of what it sends. */
export function browserOf(agent: string | null): string {
  const found = (names: [string, RegExp][]) => names.find(([, sign]) => sign.test(agent ?? ''))?.[0]
  const browser = found([
    ['Edge', /Edg\//],
    ['Opera', /OPR\//],
    ['Firefox', /Firefox\//],
    ['Chrome', /Chrom(e|ium)\//],
    ['Safari', /Safari\//],
  ])
  const system = found([
    ['Android', /Android/],
    ['iOS', /iPhone|iPad/],
    ['Windows', /Windows/],
    ['macOS', /Mac OS X/],
    ['Linux', /Linux/],
  ])
  return [browser, system].filter(Boolean).join(', ') || (agent?.slice(0, 40) ?? '')
}

