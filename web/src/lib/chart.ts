// What a curve needs: round ticks, smoothing, and a path. As evaluation/charts.py draws the report's.

export interface Dot {
  x: number
  y: number
}

/** Means over about a fifteenth of the points. The window grows with the first ones, whose fall must not be hidden. */
export function smoothed(dots: Dot[]): Dot[] {
  const reach = Math.floor(dots.length / 30)
  const sums = [0]
  for (const { y } of dots) sums.push((sums.at(-1) ?? 0) + y)
  return dots.map(({ x }, i) => {
    const begin = Math.max(i - Math.min(i, reach), 0)
    const end = Math.min(2 * i, i + reach, dots.length - 1) + 1
    return { x, y: ((sums[end] ?? 0) - (sums[begin] ?? 0)) / (end - begin) }
  })
}

/** Round numbers (1, 2 or 5 times a power of ten) from at most `low` to at least `high`. */
export function ticks(low: number, high: number, about: number): number[] {
  if (high - low <= 1e-9 * Math.max(Math.abs(low), Math.abs(high))) {
    const margin = Math.abs(low) * 0.5 || 0.5
    ;[low, high] = [low - margin, high + margin]
  }
  const rough = (high - low) / Math.max(1, about - 1)
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = ([1, 2, 5, 10].find((m) => rough <= m * power * (1 + 1e-9)) ?? 10) * power
  const first = Math.floor(low / step + 1e-9)
  const last = Math.ceil(high / step - 1e-9)
  return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step)
}

/** Powers of ten, with their doubles and fives where there are few, from at most `low` to at least `high`, both > 0. */
export function logTicks(low: number, high: number): number[] {
  const decades = Math.log10(high / low)
  const steps = decades > 3 ? [1] : decades > 1 ? [1, 3] : [1, 1.5, 2, 3, 5, 7]
  const all: number[] = []
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
    for (const m of steps) all.push(m * 10 ** power)
  const first = Math.max(0, all.findLastIndex((tick) => tick <= low * (1 + 1e-9)))
  const last = all.findIndex((tick) => tick >= high * (1 - 1e-9))
  const chosen = all.slice(first, last < 0 ? undefined : last + 1)
  return chosen.length > 1 ? chosen : [low * 0.9, high * 1.1]
}

/** What the axis must show: all but the wildest hundredth on each side. */
export function span(dots: Dot[], smooth: Dot[], also: number[]): [number, number] {
  const sorted = dots.map(({ y }) => y).sort((a, b) => a - b)
  const cut = Math.floor(sorted.length / 100)
  const must = [sorted[cut] ?? 0, sorted[sorted.length - 1 - cut] ?? 1, ...smooth.map(({ y }) => y), ...also]
  return [Math.min(...must), Math.max(...must)]
}
