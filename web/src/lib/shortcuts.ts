// The keys that do something anywhere on the chat page. Whoever writes in a field is left alone, but for those with Ctrl.

import type { Word } from './words/chat'

export type Deed = 'newChat' | 'search' | 'sidebar' | 'copyAnswer' | 'copyCode' | 'again' | 'composer' | 'stop' | 'overview'

export interface Shortcut {
  deed: Deed
  label: Word
  /** Ctrl, which is Command on a Mac. */
  ctrl: boolean
  shift: boolean
  /** As a keyboard's place (KeyK) with Ctrl, so that it is the same key in every layout; otherwise the character. */
  key: string
  /** What stands on it. */
  cap: string
}

const SINGLE = 'chatwheel.keys'

export const shortcuts: Shortcut[] = [
  { deed: 'newChat', label: 'keyNewChat', ctrl: true, shift: true, key: 'KeyO', cap: 'O' },
  { deed: 'search', label: 'search', ctrl: true, shift: false, key: 'KeyK', cap: 'K' },
  { deed: 'sidebar', label: 'keySidebar', ctrl: true, shift: true, key: 'KeyS', cap: 'S' },
  { deed: 'copyAnswer', label: 'keyCopyAnswer', ctrl: true, shift: true, key: 'KeyC', cap: 'C' },
  { deed: 'copyCode', label: 'keyCopyCode', ctrl: true, shift: true, key: 'Semicolon', cap: ';' },
  { deed: 'again', label: 'keyAgain', ctrl: true, shift: true, key: 'KeyE', cap: 'E' },
  { deed: 'stop', label: 'keyStop', ctrl: false, shift: false, key: 'Escape', cap: 'Esc' },
  { deed: 'composer', label: 'keyComposer', ctrl: false, shift: false, key: '/', cap: '/' },
  { deed: 'overview', label: 'keyOverview', ctrl: false, shift: false, key: '?', cap: '?' },
]

export const isMac = /mac|iphone|ipad/i.test(navigator.platform)

/** What stands on the keys, in the order in which they are pressed. */
export function capsOf({ ctrl, shift, cap }: Shortcut): string[] {
  return [...(ctrl ? [isMac ? '⌘' : 'Ctrl'] : []), ...(shift ? [isMac ? '⇧' : 'Shift'] : []), cap]
}

/** In a button's title: "Ctrl+Shift+O". */
export function hintOf(deed: Deed): string {
  const found = shortcuts.find((shortcut) => shortcut.deed === deed)
  return found ? capsOf(found).join(isMac ? '' : '+') : ''
}

/** Whether a character by itself may do something: with speech input a word is many of them (WCAG 2.1.4). */
export const single = {
  get on(): boolean {
    return localStorage.getItem(SINGLE) !== 'off'
  },
  set on(on: boolean) {
    localStorage.setItem(SINGLE, on ? 'on' : 'off')
  },
}

/** What is asked for. Escape is not among them: each part of the page has its own use for it. */
export function deedOf(event: KeyboardEvent): Deed | null {
  if (event.isComposing || event.keyCode === 229 || event.altKey || event.getModifierState('AltGraph')) return null
  // On a Mac Control is Emacs' in every field.
  const ctrl = isMac ? event.metaKey : event.ctrlKey
  if (event.ctrlKey !== (ctrl && !isMac) || event.metaKey !== (ctrl && isMac)) return null
  const found = shortcuts.find((one) =>
    one.ctrl ? ctrl && event.shiftKey === one.shift && event.code === one.key : !ctrl && event.key === one.key,
  )
  if (!found || found.deed === 'stop') return null
  return found.ctrl || (single.on && !writes(event.target)) ? found.deed : null
}

function writes(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.isContentEditable || target.matches('input, textarea, select'))
}
