import type { Action } from 'svelte/action'

/** A text area as high as its text, up to half of the window. */
export const grown: Action<HTMLTextAreaElement, string> = (area) => {
  function fit(): void {
    area.style.height = 'auto'
    area.style.height = `${Math.min(area.scrollHeight + 2, innerHeight / 2)}px`
  }
  fit()
  return { update: fit }
}
