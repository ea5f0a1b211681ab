// Numbers, times and shares as people read them, in the chosen language.

import type { Stage } from './types'
import { locale } from './i18n.svelte'

/** A value in few characters: 12k, 4,301, 3.25, 0.004. */
export function number(value: number): string {
  const size = Math.abs(value)
  if (size >= 1e6) return `${short(value / 1e6)}M`
  if (size >= 1e4) return `${short(value / 1e3)}k`
  if (size >= 1e3) return count(value).replace('-', '−')
  if (size > 0 && size < 1e-3) return value.toExponential(1).replace('.0e', 'e').replaceAll('-', '−')
  return short(value)
}

function short(value: number): string {
  return String(Number(value.toPrecision(4))).replace('-', '−')
}

/** A number of things: 4,210. */
export function count(value: number): string {
  return Math.round(value).toLocaleString(locale.language === 'zh' ? 'zh-CN' : 'en-US')
}

export function percent(share: number): string {
  return `${Number((share * 100).toPrecision(3))} %`
}

const units = {
  en: { s: 's', m: 'min', h: 'h', d: 'd' },
  zh: { s: '秒', m: '分', h: '小时', d: '天' },
}

/** Seconds in the two largest units that fit. */
export function duration(seconds: number): string {
  const { s, m, h, d } = units[locale.language]
  if (seconds < 1) return `${Math.round(seconds * 1000)} ${locale.language === 'zh' ? '毫秒' : 'ms'}`
  if (seconds < 10) return `${seconds.toFixed(1)} ${s}`
  const whole = Math.round(seconds)
  if (whole < 60) return `${whole} ${s}`
  if (whole < 3600) return `${Math.floor(whole / 60)} ${m} ${pad(whole % 60)} ${s}`
  if (whole < 48 * 3600) return `${Math.floor(whole / 3600)} ${h} ${pad(Math.floor(whole / 60) % 60)} ${m}`
  return `${Math.floor(whole / 86400)} ${d} ${Math.floor(whole / 3600) % 24} ${h}`
}

function pad(value: number): string {
  return String(value).padStart(2, '0')
}

/** A moment, today's by its hour. */
export function moment(seconds: number): string {
  const date = new Date(seconds * 1000)
  const today = new Date().toDateString() === date.toDateString()
  const how: Intl.DateTimeFormatOptions = today ? { timeStyle: 'short' } : { dateStyle: 'medium', timeStyle: 'short' }
  return new Intl.DateTimeFormat(locale.language === 'zh' ? 'zh-CN' : 'en', how).format(date)
}

/** How much of a stage is done, from 0 to 1. */
export function stageShare(stage: Stage): number {
  if (stage.state === 'done') return 1
  return stage.steps ? stage.step / stage.steps : 0
}

/** The size of a file. */
export function bytes(value: number): string {
  const power = value < 1e3 ? 0 : value < 1e6 ? 1 : value < 1e9 ? 2 : 3
  return `${short(Number((value / 1e3 ** power).toPrecision(3)))} ${['B', 'kB', 'MB', 'GB'][power]}`
}

/** An amount of money, however small. */
export function dollars(value: number): string {
  if (value === 0) return '$0'
  if (value < 0.01) return `$${Number(value.toPrecision(2)).toFixed(12).replace(/0+$/, '')}`
  return `$${value.toLocaleString(locale.language === 'zh' ? 'zh-CN' : 'en-US', { minimumFractionDigits: 2, maximumFractionDigits: 2 })}`
}
