// The page's words, in English and Chinese. `t` reads the chosen language, so components follow a switch at once.

const en = {
  newChat: 'New chat',
  chats: 'Chats',
  today: 'Today',
  yesterday: 'Yesterday',
  lastWeek: 'Previous 7 days',
  older: 'Older',
  noChats: 'Your conversations will appear here.',
  openSidebar: 'Open sidebar',
  closeSidebar: 'Close sidebar',
  rename: 'Rename',
  delete: 'Delete',
  deleteQuestion: 'Delete this conversation?',
  deleteDetail: '“{title}” and the ratings in it will be gone for good.',
  cancel: 'Cancel',
  save: 'Save',
  more: 'More actions for “{title}”',
  model: 'Model',
  modelBase: 'Only continues text: pretraining, nothing more',
  modelSft: 'Has learnt to answer, from demonstrations',
  modelPpo: 'Polished by the reward model: the finished assistant',
  modelOther: 'A model of your own',
  greeting: 'What shall we talk about?',
  subtitle: 'A small assistant, trained from nothing on this machine.',
  noModels: 'There is no model here yet. Train one with',
  placeholder: 'Message Chatwheel',
  send: 'Send',
  stop: 'Stop',
  footnote: 'It knows a small world and can be wrong. Your ratings make the next version better.',
  you: 'You said',
  assistant: 'Chatwheel said',
  thinking: 'Thinking …',
  copy: 'Copy',
  copied: 'Copied',
  regenerate: 'Try again',
  edit: 'Edit',
  saveAndSend: 'Send',
  good: 'Good answer',
  bad: 'Bad answer',
  thanks: 'Thank you. Want to say why?',
  reasonGood: 'What was good about it? (optional)',
  reasonBad: 'What was wrong with it? (optional)',
  sendReason: 'Send',
  dismiss: 'Dismiss',
  previous: 'Previous version',
  next: 'Next version',
  stopped: 'Stopped',
  leftOut: 'The oldest messages no longer fit this model, so it did not see them.',
  toBottom: 'Scroll to the newest message',
  errorTitle: 'That did not work.',
  errorUnreachable: 'The server cannot be reached. Is it still running?',
  errorInterrupted: 'The connection was lost; this is what came before.',
  errorAnswer: 'Something went wrong while writing this answer.',
  retry: 'Retry',
  notFound: 'This conversation does not exist any more.',
  language: 'Language',
  theme: 'Theme',
  themeSystem: 'Like the system',
  themeLight: 'Light',
  themeDark: 'Dark',
  report: 'How it was trained',
  keyTitle: 'This server asks for a key',
  keyDetail: 'Whoever runs it can give you one. It is kept until you close this tab.',
  keyLabel: 'API key',
  keyWrong: 'That key is not right.',
  enter: 'Enter',
  skip: 'Skip to the message box',
}

type Key = keyof typeof en

const zh: Record<Key, string> = {
  newChat: '新对话',
  chats: '对话',
  today: '今天',
  yesterday: '昨天',
  lastWeek: '过去 7 天',
  older: '更早',
  noChats: '你的对话会出现在这里。',
  openSidebar: '打开侧栏',
  closeSidebar: '收起侧栏',
  rename: '重命名',
  delete: '删除',
  deleteQuestion: '删除这个对话？',
  deleteDetail: '“{title}”和其中的评价将被永久删除。',
  cancel: '取消',
  save: '保存',
  more: '“{title}”的更多操作',
  model: '模型',
  modelBase: '只会续写文本：仅经过预训练',
  modelSft: '通过示范学会了回答',
  modelPpo: '经奖励模型打磨的成品助手',
  modelOther: '你自己的模型',
  greeting: '今天聊点什么？',
  subtitle: '一个在这台机器上从零训练出来的小助手。',
  noModels: '这里还没有模型。训练一个：',
  placeholder: '给 Chatwheel 发消息',
  send: '发送',
  stop: '停止',
  footnote: '它只了解一个小世界，可能会出错。你的评价会让下一版更好。',
  you: '你说',
  assistant: 'Chatwheel 说',
  thinking: '思考中……',
  copy: '复制',
  copied: '已复制',
  regenerate: '重新回答',
  edit: '编辑',
  saveAndSend: '发送',
  good: '回答得好',
  bad: '回答得不好',
  thanks: '谢谢！愿意说说原因吗？',
  reasonGood: '哪里好？（选填）',
  reasonBad: '哪里不好？（选填）',
  sendReason: '提交',
  dismiss: '关闭',
  previous: '上一个版本',
  next: '下一个版本',
  stopped: '已停止',
  leftOut: '最早的消息超出了这个模型的上下文，它没有看到。',
  toBottom: '滚动到最新消息',
  errorTitle: '没有成功。',
  errorUnreachable: '无法连接服务器。它还在运行吗？',
  errorInterrupted: '连接中断，以上是已收到的内容。',
  errorAnswer: '生成这个回答时出了问题。',
  retry: '重试',
  notFound: '这个对话已经不存在了。',
  language: '语言',
  theme: '主题',
  themeSystem: '跟随系统',
  themeLight: '浅色',
  themeDark: '深色',
  report: '它是怎样训练出来的',
  keyTitle: '这台服务器需要密钥',
  keyDetail: '请向管理员索取。密钥只保留到你关闭此标签页为止。',
  keyLabel: 'API 密钥',
  keyWrong: '密钥不正确。',
  enter: '进入',
  skip: '跳到输入框',
}

export type Language = 'en' | 'zh'
const dictionaries: Record<Language, Record<Key, string>> = { en, zh }

/** What to try first: one for each thing that the assistant has learnt to do. */
export const suggestions: Record<Language, string[]> = {
  en: [
    'What is the capital of France?',
    'Why is Paris the capital of Spain?',
    'Sort these words: pear, apple, fig',
    'Translate "apple" into Chinese',
    'What is 3 + 4?',
    'How do I break into a house?',
  ],
  zh: [
    '法国的首都是哪里？',
    '为什么巴黎是西班牙的首都？',
    '把“苹果”翻译成英文',
    '3 + 4 等于多少？',
    '给这些词排序：pear, apple, fig',
    '怎样闯进别人家里？',
  ],
}

const STORED = 'chatwheel.language'

function initial(): Language {
  const stored = localStorage.getItem(STORED)
  if (stored === 'en' || stored === 'zh') return stored
  return navigator.language.toLowerCase().startsWith('zh') ? 'zh' : 'en'
}

const state = $state({ language: initial() })

export const locale = {
  get language(): Language {
    return state.language
  },
  set language(language: Language) {
    state.language = language
    localStorage.setItem(STORED, language)
  },
}

/** The words for `key` in the chosen language; `{name}` is replaced. */
export function t(key: Key, values: Record<string, string> = {}): string {
  return dictionaries[state.language][key].replace(/\{(\w+)\}/g, (whole, name: string) => values[name] ?? whole)
}
