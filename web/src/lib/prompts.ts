// Prompts to fill in: those that come with the page, and what stands in their double braces.

import type { Language } from './i18n.svelte'

export interface Prompt {
  id: string
  title: string
  content: string
}

export interface Field {
  name: string
  /** What stands there unless something else is written. */
  usual: string
  /** It has a line of its own: a text rather than a word. */
  long: boolean
}

/** `{{name}}` or `{{name: what is usual}}`. */
const FIELD = /\{\{\s*([^{}:：\n]{1,60}?)\s*(?:[:：]\s*([^{}\n]{0,200}?)\s*)?\}\}/g

export function fieldsOf(content: string): Field[] {
  const fields = new Map<string, Field>()
  for (const found of content.matchAll(FIELD)) {
    const [whole, name = '', usual = ''] = found
    const before = content.slice(0, found.index).split('\n').at(-1) ?? ''
    const after = content.slice(found.index + whole.length).split('\n', 1)[0] ?? ''
    const long = !before.trim() && !after.trim()
    const known = fields.get(name)
    fields.set(name, { name, usual: known?.usual || usual, long: long || (known?.long ?? false) })
  }
  return [...fields.values()]
}

/** What was written into a field is text: braces in it are no fields. */
export function fill(content: string, values: Record<string, string>): string {
  return content.replace(FIELD, (_whole, name: string) => values[name]?.trim() ?? '')
}

/** In both languages, as [key, title, content]; whoever types the key finds it in any language. */
const BUILT_IN: Record<Language, [string, string, string][]> = {
  en: [
    ['continue', 'Continue a text', 'Continue this text in the same voice and tense. Write {{how much: two paragraphs}}.\n\n{{text}}'],
    ['title', 'Find a title', 'Suggest {{how many: five}} titles for this text, short and precise, one a line.\n\n{{text}}'],
    [
      'copy',
      'Write copy',
      'Write {{what: a short advertisement}} for {{product}}. Readers: {{readers: people who have never heard of it}}. Tone: {{tone: plain and friendly}}. ' +
        'Begin with what it does for them, promise nothing that is not said here, and end with what to do next.',
    ],
    ['rewrite', 'Rewrite in a style', 'Rewrite this text in this style: {{style: plain, short sentences}}. Keep its meaning, its names and its numbers.\n\n{{text}}'],
    ['summarise', 'Summarise', 'Summarise this text in {{length: three sentences}}. Say only what it says.\n\n{{text}}'],
    [
      'outline',
      'Outline, then draft',
      'I want to write {{what: an essay}} about {{topic}} for {{readers: everybody}}. First give an outline: the main point, then one line a section. ' +
        'Then write the draft along it, section by section, {{length: about 500 words}} in all.',
    ],
    ['translate', 'Translate', 'Translate this text into {{language: Chinese}}. Keep its tone; leave names as they are.\n\n{{text}}'],
    ['proofread', 'Proofread', 'Correct spelling, grammar and punctuation in this text, and change nothing else. Then list what you changed.\n\n{{text}}'],
  ],
  zh: [
    ['continue', '续写', '用同样的语气和人称续写下面的文字，写{{长度：两段}}。\n\n{{文字}}'],
    ['title', '起标题', '为下面的文字起{{数量：五}}个标题，简短准确，每行一个。\n\n{{文字}}'],
    [
      'copy',
      '写文案',
      '为{{产品}}写{{体裁：一段简短的广告文案}}。读者：{{读者：从没听说过它的人}}。语气：{{语气：平实友好}}。先说它对读者有什么用，不承诺这里没有提到的内容，最后告诉读者下一步做什么。',
    ],
    ['rewrite', '换一种风格改写', '把下面的文字改写成这种风格：{{风格：平实的短句}}。保留原意、人名和数字。\n\n{{文字}}'],
    ['summarise', '总结', '用{{长度：三句话}}总结下面的文字，只说文中说到的内容。\n\n{{文字}}'],
    [
      'outline',
      '先列提纲再写',
      '我想写{{体裁：一篇文章}}，主题是{{主题}}，读者是{{读者：所有人}}。先列提纲：中心思想，然后每一节一行。再按提纲逐节写出初稿，全文{{长度：约 800 字}}。',
    ],
    ['translate', '翻译', '把下面的文字翻译成{{语言：英文}}。保持语气，人名不译。\n\n{{文字}}'],
    ['proofread', '校对', '改正下面文字中的错别字、语法和标点，其他不变。然后列出改动之处。\n\n{{文字}}'],
  ],
}

export function builtIn(language: Language): Prompt[] {
  return BUILT_IN[language].map(([key, title, content]) => ({ id: `built-in-${key}`, title, content }))
}

/** Whether the words that were typed ask for it: by its title, or by a built-in one's English key. */
export function matches({ id, title }: { id: string; title: string }, typed: string): boolean {
  const key = id.startsWith('built-in-') ? id.slice('built-in-'.length) : ''
  const whole = `${title} ${key}`.toLowerCase()
  return typed.toLowerCase().split(/\s+/).every((word) => whole.includes(word))
}
