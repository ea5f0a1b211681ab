// Light, dark, or whatever the system says. public/theme.js applies a stored choice before the first paint.

export type Theme = 'system' | 'light' | 'dark'

const STORED = 'chatwheel.theme'
const stored = localStorage.getItem(STORED)
const state = $state<{ theme: Theme }>({ theme: stored === 'light' || stored === 'dark' ? stored : 'system' })

export const appearance = {
  get theme(): Theme {
    return state.theme
  },
  set theme(theme: Theme) {
    state.theme = theme
    if (theme === 'system') {
      localStorage.removeItem(STORED)
      delete document.documentElement.dataset['theme']
    } else {
      localStorage.setItem(STORED, theme)
      document.documentElement.dataset['theme'] = theme
    }
  },
}
