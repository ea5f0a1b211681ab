// Markdown to HTML. The text comes from a model, so nothing in it is trusted: no raw HTML, no pictures from
// elsewhere (their address could carry a conversation away), and DOMPurify last, over colours and formulas too.

import DOMPurify from 'dompurify'
import MarkdownIt, { type Env, type Token } from 'markdown-it'
import { formulaOf, formulas } from './math'
import { rich, type Need } from './rich.svelte'

/** A paragraph, a list, a code block, ...: what stands at the outermost level. */
export interface Block {
  source: string
  html: string
}

export interface Rendered {
  blocks: Block[]
  needs: Need[]
}

const markdown = new MarkdownIt({ html: false, linkify: true, breaks: true }).disable('image').use(formulas)
const { escapeHtml } = markdown.utils

// A table's alignment as a class: the Content-Security-Policy forbids style attributes.
for (const rule of ['th_open', 'td_open'] as const) {
  markdown.renderer.rules[rule] = (tokens, index, options, _env, self) => {
    const token = tokens[index]
    const side = token?.attrGet('style')?.toString().split(':')[1]
    if (token && side) token.attrs = [['class', `align-${side}`]]
    return self.renderToken(tokens, index, options)
  }
}

const languageOf = (token: Token | undefined) => token?.info.trim().split(/\s+/)[0] ?? ''

markdown.renderer.rules['fence'] = (tokens, index) => {
  const token = tokens[index]
  const language = languageOf(token)
  const content = token?.content ?? ''
  const code = (language && rich.highlight?.(content, language.toLowerCase())) || escapeHtml(content)
  return (
    `<div class="code"><div class="code-head"><span>${escapeHtml(language)}</span>` +
    `<button type="button" class="copy-code"></button></div><pre tabindex="0"><code>${code}</code></pre></div>`
  )
}

function formula(token: Token | undefined): string {
  const about = token && formulaOf(token)
  if (!about) return ''
  const set = about.pending ? null : rich.typeset?.(token.content, about.display)
  return set ?? `<code class="tex">${escapeHtml(token.markup)}</code>`
}

markdown.renderer.rules['formula'] = (tokens, index) => formula(tokens[index])
markdown.renderer.rules['formula_block'] = (tokens, index) =>
  `<div class="formula" tabindex="0">${formula(tokens[index])}</div>`

DOMPurify.addHook('afterSanitizeAttributes', (node) => {
  if (node.tagName === 'A') {
    node.setAttribute('target', '_blank')
    node.setAttribute('rel', 'noopener noreferrer nofollow')
  } else node.removeAttribute('href')
})

const CLEAN = {
  FORBID_TAGS: ['img', 'style', 'form', 'input', 'video', 'audio'],
  FORBID_ATTR: ['style', 'id', 'name'],
}

/** Only where a formula is may there be MathML. */
const purify = (html: string, mathMl: boolean) =>
  DOMPurify.sanitize(html, { ...CLEAN, USE_PROFILES: mathMl ? { html: true, mathMl } : { html: true } })

/**
 * The blocks of a text. writing: it has no end yet, so a formula by itself whose end is missing is one already.
 * before: what was made of it when it was shorter; what is still the same is taken from there.
 */
export function render(text: string, writing = false, before: Rendered | null = null): Rendered {
  const env: Env = { writing }
  const tokens = markdown.parse(text, env)
  const lines = text.split('\n')
  // What else a block depends on: links that are defined elsewhere, and what has been fetched.
  const links = Object.entries(env.references ?? {}).map(([name, { href }]) => `${name} ${href}`)
  const around = [links, rich.highlight !== null, rich.typeset !== null].join()
  const blocks: Block[] = []
  const needs = new Set<Need>()
  for (let from = 0, to = 0; from < tokens.length; from = to) {
    do to += 1
    while (to < tokens.length && depth(tokens, from, to) > 0)
    const own = tokens.slice(from, to)
    const all = own.flatMap((token) => [token, ...(token.children ?? [])])
    const mathMl = all.some(({ type }) => type.startsWith('formula'))
    if (mathMl) needs.add('typeset')
    if (all.some((token) => token.type === 'fence' && languageOf(token))) needs.add('highlight')
    const pending = own.some((token) => formulaOf(token)?.pending)
    const source = `${around}|${pending}|${lines.slice(...(own[0]?.map ?? [0, 0])).join('\n')}`
    const same = before?.blocks[blocks.length]
    const html = () => purify(markdown.renderer.render(own, markdown.options, env), mathMl)
    blocks.push(same?.source === source ? same : { source, html: html() })
  }
  return { blocks, needs: [...needs] }
}

/** How many levels are open after tokens from..to. */
function depth(tokens: Token[], from: number, to: number): number {
  const last = tokens[to - 1]
  if (!last || to - from === 1) return last?.nesting ?? 0
  return last.nesting === -1 && last.level === tokens[from]?.level ? 0 : 1
}
