// The tokens of an answer with their probabilities, as /v1/chat/completions and /v1/completions tell them.

export interface Likely {
  text: string
  probability: number
}

export interface Token extends Likely {
  /** The likeliest ones at its place, the likeliest first. */
  top: Likely[]
}

/** What is drawn as one: a token, or several that make a character together. ends: no part of the text. */
export interface Span {
  text: string
  tokens: Token[]
  ends: boolean
}

export interface ContentToken {
  token: string
  logprob: number
  bytes: number[] | null
  top_logprobs: { token: string; logprob: number; bytes: number[] | null }[]
}

export interface LegacyTokens {
  tokens: string[]
  token_logprobs: (number | null)[]
  top_logprobs: (Record<string, number> | null)[]
  text_offset: number[]
}

/** Of a chat. The bytes of all tokens are the text's; one that has none is a mark, such as the end. */
export function spansOfChat(content: ContentToken[], text: string): Span[] {
  const spans: Span[] = []
  const decoder = new TextDecoder()
  let waiting: Token[] = []
  let left = text
  for (const one of content) {
    const token = { ...likely(one), top: one.top_logprobs.map(likely) }
    if (one.bytes === null) {
      spans.push({ text: one.token, tokens: [token], ends: true })
      continue
    }
    waiting.push(token)
    const piece = decoder.decode(new Uint8Array(one.bytes), { stream: true })
    if (!piece) continue
    const begun = left.startsWith(piece)
    // What comes behind a text that stops it is cut off; anything else is no text of these tokens.
    if (!begun && !piece.startsWith(left)) break
    const shown = begun ? piece : left
    if (shown) spans.push({ text: shown, tokens: waiting, ends: false })
    left = left.slice(shown.length)
    waiting = []
  }
  return left ? [...spans, { text: left, tokens: [], ends: false }] : spans
}

function likely(one: { token: string; logprob: number; bytes: number[] | null }): Likely {
  return { text: readable(one), probability: Math.exp(one.logprob) }
}

/** A piece of a character is no text: its bytes are shown. */
function readable({ token, bytes }: { token: string; bytes: number[] | null }): string {
  if (bytes === null) return token
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(new Uint8Array(bytes))
  } catch {
    const written = (byte: number) => `\\x${byte.toString(16).padStart(2, '0')}`
    return bytes.map((byte) => (byte > 31 && byte < 127 ? String.fromCharCode(byte) : written(byte))).join('')
  }
}

/** Of a completion, whose tokens tell where they begin in the text, in characters. */
export function spansOfText({ tokens, token_logprobs, top_logprobs, text_offset }: LegacyTokens, text: string): Span[] {
  const characters = Array.from(text)
  const spans: Span[] = []
  let waiting: Token[] = []
  tokens.forEach((written, i) => {
    const begin = text_offset[i] ?? 0
    const end = Math.min(text_offset[i + 1] ?? characters.length, characters.length)
    const top = Object.entries(top_logprobs[i] ?? {}).map(([one, logprob]) => ({ text: one, probability: Math.exp(logprob) }))
    top.sort((a, b) => b.probability - a.probability)
    const token = { text: written, probability: Math.exp(token_logprobs[i] ?? 0), top }
    if (end > begin) {
      spans.push({ text: characters.slice(begin, end).join(''), tokens: [...waiting, token], ends: false })
      waiting = []
    } else if (begin < characters.length) waiting.push(token)
    else spans.push({ text: written, tokens: [token], ends: true })
  })
  return spans
}

/** The probability of all tokens of a span together. */
export function probabilityOf(span: Span): number {
  return span.tokens.reduce((product, token) => product * token.probability, 1)
}
