// What a forecast says, in the chosen language: the server's sentence is English.

import { count, percent } from './format'
import { locale } from './i18n.svelte'
import type { Forecast } from './platform'

/** As `Forecast.sentence` in evaluation/forecast.py says it. */
export function sentenceOf(forecast: Forecast): string {
  const { error, forecast: doubled, forecast_interval: interval } = forecast
  if (locale.language !== 'zh' || error === undefined || doubled === undefined || !interval) return forecast.sentence
  const between = `（${share(interval[0])} 至 ${share(interval[1])}）`
  const told =
    doubled > 0.97 * error
      ? `例子翻倍后，错误率大致仍为 ${share(error)}${between}`
      : `例子翻倍后，错误率预计从 ${share(error)} 降到约 ${share(doubled)}${between}`
  return `${told}；${aboutTarget(forecast)}。`
}

function aboutTarget({ target, needed, needed_interval: interval, examples = 0 }: Forecast): string {
  const wanted = percent(target ?? 1)
  if (needed === null || needed === undefined) return `仅靠更多同类例子，正确率达不到 ${wanted}`
  if (needed <= examples) return `${wanted} 的正确率已经达到`
  const least = rounded(Math.max(interval?.[0] ?? 0, examples))
  const between = interval?.[1] ? `${least} 至 ${rounded(interval[1])}` : `${least} 个以上`
  return `正确率达到 ${wanted} 约需 ${rounded(needed)} 个例子（${between}）`
}

/** Two digits, as they matter. */
function share(value: number): string {
  return percent(Number(value.toPrecision(2)))
}

function rounded(value: number): string {
  return count(Number(value.toPrecision(2)))
}
