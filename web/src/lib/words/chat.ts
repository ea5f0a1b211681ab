// The words of what lies over the chat: the search and what else is fetched when it is first opened.

import { words } from '../i18n.svelte'

const en = {
  search: 'Search chats',
  searchHint: 'Search titles and messages',
  close: 'Close',
  results: 'Results',
  searching: 'Searching …',
  nothingFound: 'Nothing was found for “{words}”.',
  foundCount: '{count} found',
  searchHelp: '↑ ↓ to choose, Enter to open, Esc to close',
  inTitle: 'Title',
  inQuestion: 'You',
  inAnswer: 'Answer',
}

const zh: Record<keyof typeof en, string> = {
  search: '搜索对话',
  searchHint: '搜索标题和消息',
  close: '关闭',
  results: '结果',
  searching: '正在搜索……',
  nothingFound: '没有找到“{words}”。',
  foundCount: '找到 {count} 条',
  searchHelp: '↑ ↓ 选择，Enter 打开，Esc 关闭',
  inTitle: '标题',
  inQuestion: '你',
  inAnswer: '回答',
}

export const w = words(en, zh)
export type Word = keyof typeof en
