"""What a screen reader needs: everything that can be pressed or filled in has a name, and no id is there twice."""

from __future__ import annotations

from playwright.sync_api import Page

NAMELESS = """
() => {
  const name = (one) => {
    const text = (id) => document.getElementById(id)?.textContent ?? ''
    const by = (one.getAttribute('aria-labelledby') ?? '').split(/\\s+/).map(text)
    const labels = [...(one.labels ?? [])].map((label) => label.textContent)
    const own = ['INPUT', 'SELECT', 'TEXTAREA'].includes(one.tagName) ? '' : one.textContent
    return [one.getAttribute('aria-label'), ...by, ...labels, own].join('').trim()
  }
  const roles = '[role=slider], [role=button], [role=region]'
  const kinds = `button, a[href], input, select, textarea, summary, dialog, nav, ${roles}`
  const seen = [...document.querySelectorAll(kinds)]
  const nameless = seen.filter((one) => one.checkVisibility() && !name(one)).map((one) => one.outerHTML.slice(0, 120))
  const ids = [...document.querySelectorAll('[id]')].map(({ id }) => id)
  const twice = ids.filter((id, i) => ids.indexOf(id) !== i).map((id) => `the id ${id} is there twice`)
  const named = ['aria-describedby', 'aria-labelledby'].flatMap((kind) =>
    [...document.querySelectorAll(`[${kind}]`)].flatMap((one) => one.getAttribute(kind).split(/\\s+/)))
  const lost = named.filter((id) => id && !document.getElementById(id)).map((id) => `${id} is named but not there`)
  return [...nameless, ...twice, ...lost]
}
"""


def unlabelled(page: Page) -> list[str]:
    """What is wrong with the names on the page; nothing, if all is well."""
    return list(page.evaluate(NAMELESS))
