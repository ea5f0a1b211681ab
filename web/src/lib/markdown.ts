// Markdown to HTML. The text comes from a model, so nothing in it is trusted: no raw HTML, no pictures from
// elsewhere (their address could carry a conversation away), and DOMPurify last.

import DOMPurify from 'dompurify'
import MarkdownIt from 'markdown-it'

const markdown = new MarkdownIt({ html: false, linkify: true, breaks: true }).disable('image')

// A table's alignment as a class: the Content-Security-Policy forbids style attributes.
for (const rule of ['th_open', 'td_open'] as const) {
  markdown.renderer.rules[rule] = (tokens, index, options, _env, self) => {
    const token = tokens[index]
    const side = token?.attrGet('style')?.toString().split(':')[1]
    if (token && side) token.attrs = [['class', `align-${side}`]]
    return self.renderToken(tokens, index, options)
  }
}

markdown.renderer.rules['fence'] = (tokens, index) => {
  const token = tokens[index]
  const { escapeHtml } = markdown.utils
  const language = escapeHtml(token?.info.trim().split(/\s+/)[0] ?? '')
  const code = escapeHtml(token?.content ?? '')
  return (
    `<div class="code"><div class="code-head"><span>${language}</span>` +
    `<button type="button" class="copy-code"></button></div><pre tabindex="0"><code>${code}</code></pre></div>`
  )
}

DOMPurify.addHook('afterSanitizeAttributes', (node) => {
  if (node.tagName !== 'A') return
  node.setAttribute('target', '_blank')
  node.setAttribute('rel', 'noopener noreferrer nofollow')
})

export function render(text: string): string {
  return DOMPurify.sanitize(markdown.render(text), {
    USE_PROFILES: { html: true },
    FORBID_TAGS: ['img', 'style', 'form', 'input', 'video', 'audio'],
    FORBID_ATTR: ['style', 'id', 'name'],
  })
}
