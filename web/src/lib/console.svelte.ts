// What several parts of the console need: which parts the key may see, its projects, and who the users are.

import { platform, type Project, type User } from './platform'
import { session } from './session.svelte'

export type Section = 'keys' | 'people' | 'usage' | 'limits' | 'audit' | 'reports' | 'files' | 'tuning' | 'retention' | 'health'

class Console {
  projects = $state.raw<Project[]>([])
  users = $state.raw<User[]>([])
  /** Whether its owner may hand out the project's keys. */
  owner = $state(false)
  known = $state(false)
  /** The project that is looked at. */
  project = $state('')

  get admin(): boolean {
    return session.may('admin')
  }

  get sections(): Section[] {
    const may: Record<Section, boolean> = {
      keys: this.admin || this.owner,
      people: this.admin || this.owner,
      usage: session.may('usage'),
      limits: session.may('usage'),
      files: session.may('files'),
      tuning: session.may('fine_tuning'),
      reports: this.admin,
      audit: this.admin,
      retention: this.admin,
      health: this.admin,
    }
    return (Object.keys(may) as Section[]).filter((section) => may[section])
  }

  /** Anew with each key. */
  async find(): Promise<void> {
    const me = session.me
    if (!me) return
    await fetched(async () => {
      const [projects, users, members] = await Promise.all([
        platform.projects(),
        this.admin ? platform.users() : null,
        this.admin || !session.may('project') ? null : platform.members(me.project.id),
      ])
      if (session.me !== me) return
      this.projects = projects.data
      this.users = users?.data ?? members?.data.map((member) => ({ ...member, role: 'member', added_at: 0, disabled_at: null })) ?? []
      this.owner = members?.data.some(({ id, role }) => id === me.user.id && role === 'owner') ?? false
      if (!this.projects.some(({ id }) => id === this.project)) this.project = me.project.id
      this.known = true
    })
  }

  nameOf(user: string | undefined): string {
    return this.users.find(({ id }) => id === user)?.name ?? (user === session.me?.user.id ? session.me?.user.name : user) ?? ''
  }
}

export const desk = new Console()

/** Does what the user asks; what fails is told on the page, until the next thing is done. Whether it was done. */
export async function attempt(what: () => Promise<unknown>): Promise<boolean> {
  session.problem = null
  return fetched(what)
}

/** The same for what the page does by itself, which hides no earlier problem. */
export async function fetched(what: () => Promise<unknown>): Promise<boolean> {
  try {
    await what()
    return true
  } catch (error) {
    session.reportProblem(error, null)
    return false
  }
}
