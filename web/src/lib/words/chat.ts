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
  import: 'Import chats',
  importDetail: 'A chat that was exported here as JSON, or conversations.json from ChatGPT’s export. Pictures and files are left out.',
  importChoose: 'Choose a file',
  importBusy: 'Importing: {done} of {all} …',
  imported: '{count} imported.',
  importNoJson: 'This file is no JSON.',
  importTooLarge: 'This file is larger than 400 MB.',
  importMore: 'and {count} more',
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
  import: '导入对话',
  importDetail: '在这里导出为 JSON 的对话，或 ChatGPT 导出中的 conversations.json。图片和文件会略去。',
  importChoose: '选择文件',
  importBusy: '正在导入：{done} / {all}……',
  imported: '已导入 {count} 个。',
  importNoJson: '这个文件不是 JSON。',
  importTooLarge: '这个文件大于 400 MB。',
  importMore: '还有 {count} 个',
}

export const w = words(en, zh)
export type Word = keyof typeof en
