// Formulas in Markdown: $...$ and \(...\) in a line, $$...$$ and \[...\] by themselves. Finding them is small and
// always there; setting them (lib/typeset.ts) is fetched when there is one.
//
// A single dollar begins a formula only as Pandoc has it: no space inside at either end, one formula up to the next
// dollar, and no letter or digit outside at either end. So "$5 and $6", "US$5" and "$HOME/$USER" stay as they are.

import type { MarkdownIt, StateBlock, StateInline, Token } from 'markdown-it'

/** Characters in a line, and lines, that a formula's end is looked for in: so that many beginnings cost little. */
const MOST_CHARACTERS = 4000
const MOST_LINES = 200
const OUTSIDE = /[A-Za-z0-9]/
const PAIRS = [
  ['$$', '$$'],
  ['\\[', '\\]'],
  ['\\(', '\\)'],
] as const

/** display: it stands by itself. pending: its end has not been written yet. */
export interface Formula {
  display: boolean
  pending: boolean
}

export function formulaOf(token: Token): Formula | null {
  return token.meta as unknown as Formula | null
}

export function formulas(markdown: MarkdownIt): void {
  markdown.inline.ruler.before('escape', 'formula', inline)
  markdown.block.ruler.before('fence', 'formula', block, { alt: ['paragraph', 'reference', 'blockquote', 'list'] })
}

function inline(state: StateInline, silent: boolean): boolean {
  const { src, pos, posMax } = state
  const rest = src.slice(pos, Math.min(posMax, pos + MOST_CHARACTERS))
  const pair = PAIRS.find(([open]) => rest.startsWith(open))
  const length = pair ? paired(rest, pair) : rest[0] === '$' ? single(rest, src[pos - 1]) : 0
  if (!length) return false
  if (!silent) {
    const mark = pair ? 2 : 1
    const token = state.push('formula', '', 0)
    token.content = rest.slice(mark, length - mark)
    token.markup = rest.slice(0, length)
    token.meta = { display: pair !== undefined && pair[0] !== '\\(', pending: false }
  }
  state.pos += length
  return true
}

/** The length with both marks; 0: it has no end, or nothing in it. */
function paired(rest: string, [open, close]: readonly [string, string]): number {
  const end = rest.indexOf(close, open.length)
  return end > 0 && rest.slice(open.length, end).trim() ? end + close.length : 0
}

function single(rest: string, before: string | undefined): number {
  if (before === '\\' || (before && OUTSIDE.test(before)) || /^\$(\s|$)/.test(rest)) return 0
  let end = rest.indexOf('$', 1)
  while (end > 0 && rest[end - 1] === '\\') end = rest.indexOf('$', end + 1)
  if (end < 2 || /\s/.test(rest[end - 1] ?? '')) return 0
  const after = rest[end + 1]
  return after && (OUTSIDE.test(after) || after === '$') ? 0 : end + 1
}

function block(state: StateBlock, from: number, to: number, silent: boolean): boolean {
  const lineOf = (line: number) =>
    state.src.slice((state.bMarks[line] ?? 0) + (state.tShift[line] ?? 0), state.eMarks[line]).trimEnd()
  if ((state.sCount[from] ?? 0) - state.blkIndent >= 4) return false
  const first = lineOf(from)
  const pair = PAIRS.slice(0, 2).find(([open]) => first.startsWith(open))
  if (!pair) return false
  const [open, close] = pair
  const lines = [first.slice(open.length)]
  let end = from
  while (!lines.at(-1)?.includes(close) && end + 1 < Math.min(to, from + MOST_LINES)) {
    if ((state.sCount[end + 1] ?? 0) < state.blkIndent) break
    end += 1
    lines.push(lineOf(end))
  }
  const last = lines.pop() ?? ''
  const closed = last.endsWith(close) && last.indexOf(close) === last.length - close.length
  const pending = state.env['writing'] === true && !last.includes(close) && end + 1 >= to
  if (!closed && !pending) return false
  lines.push(closed ? last.slice(0, -close.length) : last)
  const content = lines.join('\n').trim()
  if (closed && !content) return false
  if (silent) return true
  state.line = end + 1
  const token = state.push('formula_block', '', 0)
  token.block = true
  token.content = content
  token.markup = `${open}${lines.join('\n')}${closed ? close : ''}`
  token.map = [from, state.line]
  token.meta = { display: true, pending }
  return true
}
