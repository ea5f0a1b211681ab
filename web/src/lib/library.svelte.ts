// One's own personas, prompts and instruction, as the server keeps them.

import { id, json } from './api'
import { session } from './session.svelte'
import type { Prompt } from './prompts'
import type { Persona } from './types'

export type NewPersona = Omit<Persona, 'id'>
export type NewPrompt = Omit<Prompt, 'id'>

class Library {
  personas = $state.raw<Persona[]>([])
  prompts = $state.raw<Prompt[]>([])
  ready = $state(false)

  /** Anew each time: another tab may have changed them. Raises ApiError. */
  async load(): Promise<void> {
    if (!session.may('conversations')) return
    const [personas, prompts] = await Promise.all([
      json<{ data: Persona[] }>('GET', 'api/personas'),
      json<{ data: Prompt[] }>('GET', 'api/prompts'),
    ])
    this.personas = personas.data
    this.prompts = prompts.data
    this.ready = true
  }

  /** old: the one that it replaces. Raises ApiError, as the others do. */
  async keepPersona(persona: NewPersona, old: Persona | null): Promise<void> {
    await (old ? json('PUT', `api/personas/${id(old.id)}`, persona) : json('POST', 'api/personas', persona))
    await this.load()
  }

  async keepPrompt(prompt: NewPrompt, old: Prompt | null): Promise<void> {
    await (old ? json('PUT', `api/prompts/${id(old.id)}`, prompt) : json('POST', 'api/prompts', prompt))
    await this.load()
  }

  async removePersona(persona: Persona): Promise<void> {
    await json('DELETE', `api/personas/${id(persona.id)}`)
    await this.load()
  }

  async removePrompt(prompt: Prompt): Promise<void> {
    await json('DELETE', `api/prompts/${id(prompt.id)}`)
    await this.load()
  }

  async instruction(): Promise<string> {
    return (await json<{ content: string }>('GET', 'api/instruction')).content
  }

  async setInstruction(content: string): Promise<string> {
    return (await json<{ content: string }>('PUT', 'api/instruction', { content })).content
  }
}

export const library = new Library()
