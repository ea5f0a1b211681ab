// KaTeX, fetched with the first formula. It makes MathML alone, which browsers set themselves: KaTeX's HTML needs
// style attributes, which the Content-Security-Policy forbids, and 300 kB of fonts.

import katex from 'katex'

const LONGEST = 4000

/** null: it is no formula that KaTeX knows; then its source is shown. */
export function typeset(tex: string, display: boolean): string | null {
  if (tex.length > LONGEST) return null
  try {
    const made = katex.renderToString(tex, {
      displayMode: display,
      output: 'mathml',
      throwOnError: true,
      trust: false,
      strict: 'ignore',
      maxExpand: 200,
      maxSize: 20,
    })
    // The source beside the formula: markup that no browser shows need not pass the sanitiser.
    return made.replace(/<annotation [^>]*>[^<]*<\/annotation>/g, '').replace(/<\/?semantics>/g, '')
  } catch {
    return null
  }
}
