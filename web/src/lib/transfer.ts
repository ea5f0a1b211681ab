// Conversations out to files and in from them.

import { call, id, json } from './api'
import type { Conversation } from './types'

export type Format = 'json' | 'markdown'
const TOGETHER = 100
/** Characters of a request; the server takes 10 MB, and one of these may be four bytes. */
const MOST_CHARACTERS = 2_000_000
export const MOST_BYTES = 400 * 1024 * 1024

/** leaf: the last message of the branch that is shown, for Markdown. */
export async function save(conversation: Conversation, format: Format, leaf: string | null): Promise<void> {
  const branch = leaf === null ? '' : `&leaf=${id(leaf)}`
  const response = await call('GET', `api/conversations/${id(conversation.id)}/export?format=${format}${branch}`)
  const link = document.createElement('a')
  link.href = URL.createObjectURL(await response.blob())
  const name = conversation.title.replace(/[\p{C}\\/:*?"<>|]+/gu, ' ').trim().slice(0, 80)
  link.download = `${name || 'chat'}.${format === 'json' ? 'json' : 'md'}`
  link.click()
  URL.revokeObjectURL(link.href)
}

/** What a file holds, in portions that the server takes. Throws SyntaxError where it is no JSON. */
export function portions(text: string): { body: unknown; count: number }[] {
  const given: unknown = JSON.parse(text)
  if (!Array.isArray(given)) return [{ body: given, count: 1 }]
  const found: { body: unknown[]; count: number }[] = []
  let size = Infinity
  for (const item of given as unknown[]) {
    const length = JSON.stringify(item).length
    let last = found.at(-1)
    if (!last || size + length > MOST_CHARACTERS || last.count >= TOGETHER) {
      last = { body: [], count: 0 }
      found.push(last)
      size = 0
    }
    last.body.push(item)
    last.count += 1
    size += length
  }
  return found
}

export const bring = async (body: unknown): Promise<Conversation[]> =>
  (await json<{ data: Conversation[] }>('POST', 'api/conversations/import', body)).data
