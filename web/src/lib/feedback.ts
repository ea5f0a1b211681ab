// What people say about answers, as the server takes it: src/chatwheel/server/routes/feedback.py.

import { id, json } from './api'
import type { Choice, Comparison } from './types'

export const GOOD = ['right', 'helpful', 'clear', 'well_written', 'other'] as const
export const BAD = [
  ...(['wrong', 'made_up', 'not_followed', 'unclear', 'too_long', 'too_short'] as const),
  ...(['language', 'harmful', 'refused', 'other'] as const),
]
export const REPORTS = ['harmful', 'private', 'illegal', 'spam', 'other'] as const
export type ReportReason = (typeof REPORTS)[number]

export const feedback = {
  correct: (message: string, content: string) =>
    json<{ content: string }>('PUT', `api/messages/${id(message)}/correction`, { content }),
  report: (message: string, reason: ReportReason, comment: string) =>
    json<void>('POST', `api/messages/${id(message)}/report`, { reason, comment: comment.trim() || null }),
  choose: (comparison: string, choice: Choice) =>
    json<Comparison>('PUT', `api/comparisons/${id(comparison)}`, { choice }),
}
