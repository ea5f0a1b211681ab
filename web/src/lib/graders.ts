// Graders to begin with, one of each type that the server knows: src/chatwheel/jobs/fine_tuning/graders.py.

export type Grader = { type: string; name: string } & Record<string, unknown>

export const GRADER_TYPES = ['string_check', 'text_similarity', 'python', 'score_model', 'label_model', 'multi'] as const
export type GraderType = (typeof GRADER_TYPES)[number]

const ANSWER = '{{ sample.output_text }}'
const REFERENCE = '{{ item.answer }}'

const check: Grader = { type: 'string_check', name: 'right', operation: 'ilike', input: ANSWER, reference: REFERENCE }

const SOURCE = `def grade(sample, item):
    """From 0 to 1. sample: the answer; item: its line of the file."""
    text = sample["output_text"].strip()
    if not text:
        return 0.0
    right = item["answer"].lower() in text.lower()
    brief = len(text.split()) <= 30
    return 0.8 * right + 0.2 * brief
`

const BRIEF = `def grade(sample, item):
    return min(1.0, 30 / max(1, len(sample["output_text"].split())))
`

const QUESTION = 'Question: {{ item.messages[0].content }}\nAnswer: {{ sample.output_text }}'

/** One that a job would take. model: whom those that ask a model ask. */
export function template(type: GraderType, model: string): Grader {
  const made: Record<GraderType, Grader> = {
    string_check: check,
    text_similarity: {
      type: 'text_similarity',
      name: 'alike',
      evaluation_metric: 'fuzzy_match',
      input: ANSWER,
      reference: REFERENCE,
    },
    python: { type: 'python', name: 'program', source: SOURCE },
    score_model: {
      type: 'score_model',
      name: 'judge',
      model,
      input: [
        { role: 'system', content: 'How good is the answer? Reply with a number from 0 to 10, and nothing else.' },
        { role: 'user', content: QUESTION },
      ],
      range: [0, 10],
      sampling_params: { temperature: 0 },
    },
    label_model: {
      type: 'label_model',
      name: 'polite',
      model,
      input: [
        { role: 'system', content: 'Is the answer polite? Reply with yes or no, and nothing else.' },
        { role: 'user', content: QUESTION },
      ],
      labels: ['yes', 'no'],
      passing_labels: ['yes'],
    },
    multi: {
      type: 'multi',
      name: 'right and brief',
      graders: { right: check, brief: { type: 'python', name: 'brief', source: BRIEF } },
      calculate_output: '0.8 * right + 0.2 * brief',
    },
  }
  return made[type]
}

export const written = (grader: unknown): string => JSON.stringify(grader, null, 2)

/** The object in a text; null if it is none. */
export function read(text: string): Grader | null {
  try {
    const value: unknown = JSON.parse(text)
    return value !== null && typeof value === 'object' && !Array.isArray(value) ? (value as Grader) : null
  } catch {
    return null
  }
}
