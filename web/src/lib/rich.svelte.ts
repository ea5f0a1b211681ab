// What only some answers need is fetched when the first of them comes; until then, and if it cannot be fetched, code
// is without colours and a formula is its source.

export type Need = 'highlight' | 'typeset'

class Rich {
  highlight = $state.raw<typeof import('./highlight').highlight | null>(null)
  typeset = $state.raw<typeof import('./typeset').typeset | null>(null)
  private asked = new Set<Need>()

  fetch(need: Need): void {
    if (this.asked.has(need)) return
    this.asked.add(need)
    const coming =
      need === 'highlight'
        ? import('./highlight').then((module) => void (this.highlight = module.highlight))
        : import('./typeset').then((module) => void (this.typeset = module.typeset))
    coming.catch(() => this.asked.delete(need))
  }
}

export const rich = new Rich()
