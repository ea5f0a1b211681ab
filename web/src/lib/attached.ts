// Texts that go along with a question: read here, in whatever encoding they are, and never taken for anything but text.

export interface Attached {
  name: string
  content: string
}

/** As the server allows. */
export const MOST_FILES = 10
export const MOST_CHARACTERS = 1_000_000
const MOST_BYTES = 4_000_000

/** What a chooser of files offers; whatever else is text may be dropped or pasted. */
export const ACCEPT =
  'text/*,.txt,.md,.markdown,.csv,.tsv,.json,.jsonl,.yaml,.yml,.toml,.ini,.xml,.log,.tex,.srt,.py,.ipynb,.js,.mjs,.ts,.tsx,.jsx,.svelte,.vue,' +
  '.css,.html,.c,.h,.cpp,.hpp,.cs,.java,.kt,.go,.rs,.rb,.php,.swift,.scala,.lua,.r,.sql,.sh,.bat,.ps1'

export type Refusal = 'notText' | 'tooLarge' | 'emptyFile'

/** UTF-8, UTF-16 with its mark, or what Chinese files were in before. */
export async function read(file: File): Promise<Attached | Refusal> {
  if (file.size > MOST_BYTES) return 'tooLarge'
  const bytes = new Uint8Array(await file.arrayBuffer())
  const text = decode(bytes)
  if (text === null) return 'notText'
  if (!text.trim()) return 'emptyFile'
  if (text.length > MOST_CHARACTERS) return 'tooLarge'
  const name = file.name.replaceAll(/[\u0000-\u001f\u007f\u2028\u2029]/g, ' ').trim().slice(-200)
  return { name: name || 'file.txt', content: text }
}

function decode(bytes: Uint8Array): string | null {
  const marked = (bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff)
  const encodings = marked ? [bytes[0] === 0xff ? 'utf-16le' : 'utf-16be'] : ['utf-8', 'gb18030']
  if (!marked && bytes.includes(0)) return null
  for (const encoding of encodings) {
    try {
      return new TextDecoder(encoding, { fatal: true }).decode(bytes)
    } catch {
      // the next one
    }
  }
  return null
}

/** "3.2 kB": of characters, as what counts is how much there is to read. */
export function sizeOf(content: string): string {
  const count = content.length
  return count < 1000 ? `${count} B` : count < 1_000_000 ? `${(count / 1000).toFixed(count < 10_000 ? 1 : 0)} kB` : `${(count / 1_000_000).toFixed(1)} MB`
}
