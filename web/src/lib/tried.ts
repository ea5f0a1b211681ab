// What a dialog does, and how it tells what went wrong.

import { ApiError } from './api'
import { session } from './session.svelte'

/** Does it; what the server found wrong with it is given in words, '' if that is told elsewhere, null if it was done. */
export async function tried(what: () => Promise<unknown>): Promise<string | null> {
  try {
    await what()
    return null
  } catch (error) {
    if (error instanceof ApiError && error.status !== 401 && error.status !== 0) return error.message
    session.reportProblem(error, null)
    return ''
  }
}
